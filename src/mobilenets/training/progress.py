"""What a person sees of a run: a bar on a terminal, one line an epoch anywhere else."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mobilenets.training.checkpoint import State


class Reporter:
    """Reports a run on standard error; use as a context manager."""

    def __init__(self, epochs: int, steps: int, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.epochs, self.steps = epochs, steps
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "Reporter":
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def begin(self, epoch: int) -> None:
        """An epoch, counted from 1, begins."""
        for task in list(self.bar.task_ids):
            self.bar.remove_task(task)
        self.task = self.bar.add_task(f"epoch {epoch}/{self.epochs}", total=self.steps, loss="")

    def count(self, what: str, done: int, total: int) -> None:
        """Shows how much is done of something that is no epoch."""
        if not self.bar.task_ids:
            self.task = self.bar.add_task(what, total=total, loss="")
        self.bar.update(self.task, completed=done)

    def step(self, loss: float) -> None:
        """A step is done; ``loss`` is the epoch's mean so far."""
        self.bar.update(self.task, advance=1, loss=f"loss {loss:.3f}")

    def end(self, state: State) -> None:
        """An epoch is done; its row is the last of the history."""
        row = state.history[-1]
        if "accuracy" in row:
            figures = f"accuracy {row['accuracy']:7.2%}  evaluation {row['val_accuracy']:7.2%}"
        elif "val_miou" in row:
            figures = f"mIoU {row['val_miou']:7.2%}  pixels {row['val_pixel_accuracy']:7.2%}"
        else:
            figures = f"AP {row['val_ap']:7.2%}  AP50 {row['val_ap50']:7.2%}"
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.4f}  {figures}  {row['seconds']:.1f} s"
        )

    def say(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, markup=False, soft_wrap=True)
