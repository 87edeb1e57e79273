"""Which network of a front runs the next frame, so that frames hold a deadline; without a clock and without a model.

A frame takes ``overhead + slowness × cost``: the overhead is what every network needs (such as resizing the image), the
cost is what a network took alone on this machine, and the slowness is what other programs, or heat, make of it. Every
frame tells the slowness, and with it what any other network would have taken for that frame.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

SHARE = 0.95  # of the frames that shall hold the deadline
WINDOW = 20  # frames that a prediction looks back on
MARGIN = 0.95  # share of the deadline that a network which runs may take
ROOM = 0.85  # share that a slower one may be expected to take before it is tried; less, so as not to go to and fro
RECORD = 40  # frames of a network itself that tell whether it holds
SETTLE = 5  # frames between two steps up, where nothing speaks against the second
LONGEST = 160  # frames after which a network that did not hold is tried again at the latest; it costs two late ones
FASTER = 0.8  # of the slowness in which a network did not hold: then the machine is another, and it need not wait


class Controller:
    """Chooses a network for each frame.

    - Down at once: one step when a frame is late, or when more than 5 % of this network's latest frames came near the
      deadline; and as far as needed when two frames in a row say so, which is a load and not a hiccup.
    - Up by one step, when 95 % of the latest frames would have left room with the next slower network.
    - A step up that does not hold makes the next one to that network wait twice as long, unless the machine has become
      faster meanwhile. After 160 frames it is tried in any case, for only that shows some loads' end.

    Args:
        costs: ms that each network takes on the idle machine, ascending.
        deadline: ms of a frame.

    Attributes:
        current: index of the network to run now; in the beginning the slowest that has room.
    """

    def __init__(self, costs: Sequence[float], deadline: float) -> None:
        if not costs or min(costs) <= 0 or deadline <= 0 or sorted(costs) != list(costs):
            raise ValueError("costs must ascend, and be positive like the deadline")
        self._costs, self._deadline = list(costs), deadline
        self._frames: deque[tuple[float, float]] = deque(maxlen=WINDOW)  # overhead and slowness, latest last
        self._since, self._climbed = 0, False  # frames since the last step, and whether that went up
        self._wait = [SETTLE] * len(costs)  # frames before a network is tried
        self._tried = [0.0] * len(costs)  # the slowness before it was tried last
        # Of each network: whether its latest frames came near the deadline.
        self._records = [deque[bool](maxlen=RECORD) for _ in costs]
        self._held = [0] * len(costs)  # frames of each since it last failed, or was last trusted more
        self.current = max((i for i, cost in enumerate(costs) if cost <= ROOM * deadline), default=0)

    def observe(self, ms: float, overhead: float = 0.0) -> int:
        """Takes note of a frame that the current network ran.

        Args:
            ms: that all of it took.
            overhead: ms of these that another network would have needed as well.

        Returns:
            `current`, for the next frame.
        """
        overhead = min(max(overhead, 0.0), ms)
        self._frames.append((overhead, (ms - overhead) / self._costs[self.current]))
        self._since += 1
        self._records[self.current].append(ms > MARGIN * self._deadline)
        self._held[self.current] += 1
        lower = self._lower(ms)
        if lower < self.current:
            self._judge()
            self._go(lower)
        elif self._may_climb():
            self._tried[self.current + 1] = self._slowness()
            self._go(self.current + 1)
        if self._climbed and self._since == WINDOW:
            self._cheer()
        if self._held[self.current] >= max(RECORD, self._wait[self.current]):
            self._wait[self.current] = max(SETTLE, self._wait[self.current] // 2)
            self._held[self.current] = 0
        return self.current

    def predicted(self, member: int) -> float:
        """The ms that 95 % of the latest frames would have taken at most with a network; 0 before there are two."""
        return self._quantile(member, self._frames)

    def _quantile(self, member: int, frames: Iterable[tuple[float, float]]) -> float:
        cost = self._costs[member]
        times = sorted((overhead + slowness * cost for overhead, slowness in frames), reverse=True)
        # The slowest one never counts: it may be a hiccup.
        beyond = max(1, _allowed(len(times)))
        return times[beyond] if len(times) > beyond else 0.0

    def _lower(self, ms: float) -> int:
        """The network that the latest frames leave, at most the current one."""
        limit, member = MARGIN * self._deadline, self.current
        mine = islice(reversed(self._frames), min(self._since, WINDOW))
        if ms > self._deadline or self._quantile(member, mine) > limit:
            member = max(0, member - 1)
        latest = list(self._frames)[-2:]
        if len(latest) == 2:
            while member and min(over + slowness * self._costs[member] for over, slowness in latest) > limit:
                member -= 1
        return member

    def _may_climb(self) -> bool:
        above = self.current + 1
        if above == len(self._costs) or self._since < SETTLE or len(self._frames) < 2:
            return False
        if self._since < self._wait[above] and self._slowness() > FASTER * self._tried[above]:
            return False
        return self.predicted(above) <= ROOM * self._deadline

    def _judge(self) -> None:
        """Lets a network that comes near the deadline too often wait longer; one late frame of many is not that."""
        record = self._records[self.current]
        if sum(record) > 1 + _allowed(len(record)):
            self._wait[self.current] = min(LONGEST, max(WINDOW, 2 * self._wait[self.current]))
            self._held[self.current] = 0
            record.clear()

    def _cheer(self) -> None:
        """Lets those above a network that holds again be tried soon: the load that they failed under may be over.

        Short frames may not tell. The system often leaves them alone and interrupts the longer ones.
        """
        if self._wait[self.current] > WINDOW:
            for above in range(self.current + 1, len(self._wait)):
                self._wait[above] = min(self._wait[above], WINDOW)

    def _go(self, member: int) -> None:
        self._climbed = member > self.current
        self.current, self._since = member, 0

    def _slowness(self) -> float:
        """The median of the latest frames."""
        return sorted(slowness for _, slowness in self._frames)[len(self._frames) // 2]


def _allowed(frames: int) -> int:
    """How many of so many frames may be late."""
    return int((1 - SHARE) * frames + 1e-9)
