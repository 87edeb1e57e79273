"""History as CSV and, where wanted, for TensorBoard."""

import csv
import io
from pathlib import Path
from typing import Any

from mobilenets.errors import UserError
from mobilenets.files import write_text


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Writes ``history.csv``, one row an epoch."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(history[0]) if history else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in history)
    write_text(path, table.getvalue())


class TensorBoard:
    """Writes each epoch's row as scalars under ``directory``, without TensorFlow, so on every backend."""

    def __init__(self, directory: Path):
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs the tensorboard package: pip install 'mobilenets[tensorboard]'"
            ) from None
        self.make_event, self.make_summary = Event, Summary
        self.writer = EventFileWriter(str(directory))

    def write(self, row: dict[str, Any]) -> None:
        """Adds one epoch."""
        import time

        values = [
            self.make_summary.Value(tag=f"epoch/{name}", simple_value=value)
            for name, value in row.items()
            if name != "epoch"
        ]
        summary = self.make_summary(value=values)
        self.writer.add_event(self.make_event(wall_time=time.time(), step=int(row["epoch"]), summary=summary))
        self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self.writer.close()
