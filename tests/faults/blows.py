"""What is done to a run in full flight. Each blow strikes at once, mends what it broke, and says what it may cost."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.errors import LedgerUnavailable
from services import wait_for

from .stage import handed_over
from .wire import Strike

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Sender

    from .scene import Scene

    Blow = Callable[[Scene], None]


CGROUPS = Path("/sys/fs/cgroup/memory")


# --- senders ------------------------------------------------------------------------------------------------
def kill(scene: Scene) -> None:
    """kill -9 of one."""
    victim = scene.victim()
    scene.hit(victim)
    victim.process.kill()


def kill_all(scene: Scene) -> None:
    """kill -9 of all at once."""
    for sender in wait_for("senders are at work", scene.at_work):
        scene.hit(sender)
        sender.process.kill()


def freeze_and_thaw(scene: Scene) -> None:
    """SIGSTOP past the lease while a successor takes over; then the frozen one goes on where it was."""
    victim = scene.victim()
    scene.hit(victim)
    victim.process.send_signal(signal.SIGSTOP)
    _succeed(scene, victim)
    victim.process.send_signal(signal.SIGCONT)
    victim.process.wait(30)


def _succeed(scene: Scene, victim: Sender) -> None:
    """Another process for the victim's range, until it owns it."""
    (before,) = scene.sql("SELECT epoch FROM range WHERE run = %s AND wave = 1 AND idx = %s",
                          scene.fleet.run, victim.index)[0]  # fmt: skip
    successor = scene.fleet.spawn(victim.wave, victim.index)

    def taken() -> bool:
        nonlocal successor
        if successor.process.poll() is not None:  # another blow struck it while it waited
            successor = scene.fleet.spawn(victim.wave, victim.index)
        ((epoch, state),) = scene.sql(
            "SELECT epoch, state FROM range WHERE run = %s AND wave = 1 AND idx = %s", scene.fleet.run, victim.index
        )
        return epoch > before or state != "Open"

    wait_for("the range is taken over", taken, seconds=scene.timing.to_recover + 20)


def stop_inside(step: str) -> Blow:
    """SIGSTOP between the UPDATE and the COMMIT of this step; a successor takes over; then it is thawed."""

    def blow(scene: Scene) -> None:
        stopped: list[Sender] = []

        def freeze(pod: str) -> None:
            for sender in list(scene.fleet.senders):
                if _pod(sender) == pod:
                    sender.process.send_signal(signal.SIGSTOP)
                    scene.hit(sender)
                    stopped.append(sender)

        proxy = scene.stage.ledger_proxy
        strike = proxy.strike(Strike(step, "pause", meanwhile=freeze))
        proxy.struck(strike)
        wait_for("it is stopped", lambda: stopped)
        (victim,) = stopped
        _succeed(scene, victim)
        proxy.disarm(strike)
        victim.process.send_signal(signal.SIGCONT)
        victim.process.wait(30)

    return blow


def kill_inside_claim(scene: Scene) -> None:
    """A claim's COMMIT is under way for half a second, and never arrives: its sender is killed meanwhile."""
    victims: list[Sender] = []

    def note(pod: str) -> None:
        victims.extend(s for s in list(scene.fleet.senders) if _pod(s) == pod)

    proxy = scene.stage.ledger_proxy
    strike = proxy.strike(Strike("claim", "pause", meanwhile=note))
    proxy.struck(strike)
    (victim,) = wait_for("a sender claims", lambda: victims)
    scene.pause(0.4, 0.6)
    scene.hit(victim)
    victim.process.kill()
    victim.process.wait(10)
    strike.lost = True
    proxy.disarm(strike)


def _pod(sender: Sender) -> str:
    """The name by which a sender's connections are known to the ledger."""
    return f"mailfleet-sender pod-{sender.log.stem.removeprefix('sender-')}"


def terminate(scene: Scene) -> None:
    """SIGTERM with all the time that a drain needs."""
    for sender in wait_for("senders are at work", scene.at_work):
        scene.hit(sender, claimed=False)
        sender.process.send_signal(signal.SIGTERM)


def terminate_in_a_hurry(scene: Scene) -> None:
    """SIGTERM without time to drain, at a relay that is slow: what is in flight is cut."""
    scene.stage.sink.behave({"phase": "dot", "delay": 0.4})
    scene.pause(0.3, 0.5)
    scene.allow_in_flight()
    for sender in wait_for("senders are at work", scene.at_work):
        scene.hit(sender, claimed=False)
        sender.process.send_signal(signal.SIGTERM)
    scene.pause(0.5)
    scene.stage.sink.behave()


def starve(scene: Scene) -> None:
    """One sender is out of memory: the kernel kills it in a cgroup of its own, where we may make one."""
    victim = scene.victim()
    scene.hit(victim)
    group = CGROUPS / f"mailfleet-faults-{victim.process.pid}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("65536")
    except OSError:  # not root, or another kind of cgroup: its next large allocation fails instead, if it needs one
        pages = int(Path(f"/proc/{victim.process.pid}/statm").read_text(encoding="ascii").split()[0])
        limit = pages * os.sysconf("SC_PAGESIZE")
        resource.prlimit(victim.process.pid, resource.RLIMIT_AS, (limit, limit))
        return
    (group / "cgroup.procs").write_text(str(victim.process.pid))
    scene.figures["killed_by"] = -victim.process.wait(30)
    assert scene.figures["killed_by"] == signal.SIGKILL
    wait_for("the cgroup is empty", lambda: _removed(group))


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def twins(scene: Scene) -> None:
    """A second process for each range, beside the one that owns it."""
    for sender in wait_for("senders are at work", scene.at_work):
        scene.hit(sender, claimed=False)
        scene.fleet.spawn(sender.wave, sender.index)


# --- Postgres -----------------------------------------------------------------------------------------------
def restart_postgres(scene: Scene) -> None:
    """A fast shutdown and a start."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.stage.stop_postgres()
    scene.stage.postgres.start()
    scene.mended()


def kill_postgres(scene: Scene) -> None:
    """kill -9 of the server; what was acknowledged must be there again."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.stage.postgres.kill()
    scene.stage.postgres.start()
    scene.mended()


def away(low: float, high: float) -> Blow:
    """No server for so many seconds."""

    def blow(scene: Scene) -> None:
        scene.allow_in_flight()
        scene.hit(claimed=False)
        scene.stage.stop_postgres()
        scene.figures["away_seconds"] = round(scene.pause(low, high), 1)
        scene.stage.postgres.start()
        scene.mended()

    return blow


def freeze_postgres(scene: Scene) -> None:
    """The server and its connections stand still past the lease."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.tending.clear()
    scene.stage.freeze_postgres()
    scene.pause(1.0, 3.5)
    scene.stage.freeze_postgres(thaw=True)
    scene.mended()
    scene.tending.set()


def read_only(scene: Scene) -> None:
    """Every transaction is read-only for a while, as on a fail-over."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.stage.set_postgres(default_transaction_read_only="on")
    scene.pause(0.5, 3.0)
    scene.stage.set_postgres(default_transaction_read_only=None)
    scene.mended()


def slow_postgres(scene: Scene) -> None:
    """Each message to and from the server is late."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.stage.ledger_proxy.delay_seconds = scene.random.uniform(0.02, 0.15)
    scene.pause(1.5, 3.0)
    scene.stage.ledger_proxy.delay_seconds = 0.0
    scene.mended()


def cut_connections(scene: Scene) -> None:
    """Every connection to the ledger is lost, whatever it was doing, a few times."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    for _ in range(scene.random.randint(1, 4)):
        scene.stage.ledger_proxy.cut()
        scene.pause(0.05, 0.3)
    scene.mended()


def cut_commit(step: str, how: str, count: int = 2) -> Blow:
    """The COMMIT of the next transactions of this step is cut: before the server got it, after, or it comes late."""

    def blow(scene: Scene) -> None:
        scene.allow_in_flight()
        proxy = scene.stage.ledger_proxy
        many = 1 if step in {"takeover", "drain", "close"} else count
        strike = proxy.strike(Strike(step, how, count=many))
        if step == "takeover":
            kill(scene)
        elif step == "drain":
            victim = scene.busiest()
            scene.hit(victim, claimed=False)
            victim.process.send_signal(signal.SIGTERM)
        elif step == "close":
            _close(scene)
        if step in {"claim", "record"}:
            scene.hit(claimed=False)
        proxy.struck(strike, seconds=scene.timing.to_recover + 20)
        proxy.disarm(strike)

    return blow


def _close(scene: Scene) -> None:
    """Cancel: drain, then close through the proxy, at each tick until it is done."""
    scene.tending.clear()
    scene.closing = True
    for sender in list(scene.fleet.senders):
        sender.process.send_signal(signal.SIGKILL if sender.index == 0 else signal.SIGTERM)
        if sender.index == 0:
            scene.hit(sender)
    for sender in list(scene.fleet.senders):
        sender.process.wait(30)
    runs = scene.proxied_runs()

    def closed() -> bool:
        try:
            return runs.close(scene.fleet.run, RunState.CANCELLED)
        except LedgerUnavailable:
            return False

    wait_for("the run is closed", closed, seconds=scene.timing.to_recover + 20)
    scene.tending.set()


def cancel(scene: Scene) -> None:
    """Cancel in full flight, one sender killed on the way."""
    _close(scene)


def rewind(scene: Scene) -> None:
    """An older state of the ledger is restored: nobody may go on."""
    stage = scene.stage
    copy = stage.folder / f"copy-{scene.seed}"
    scene.tending.clear()
    stage.stop_postgres()
    stage.save_postgres(copy)
    stage.postgres.start()
    before = scene.accepted_now()
    wait_for("it goes on", lambda: scene.accepted_now() > before + 100, seconds=30)
    stage.stop_postgres()
    stage.restore_postgres(copy)
    stage.postgres.start()
    scene.allow_in_flight()
    for sender in scene.fleet.senders:
        code = sender.process.wait(40)
        assert code in {Exit.DONE, Exit.IMPOSSIBLE}, f"a sender ended with {code}"
    scene.figures["refused"] = sum(s.process.returncode == Exit.IMPOSSIBLE for s in scene.fleet.senders)
    assert scene.figures["refused"], "no sender noticed"


# --- Redis --------------------------------------------------------------------------------------------------
def kill_redis(scene: Scene) -> None:
    """kill -9, away for a while, empty afterwards."""
    scene.hit(claimed=False)
    scene.stage.redis.kill()
    scene.pause(0.1, 2.5)
    scene.stage.redis.start()
    scene.mended()


def flush_redis(scene: Scene) -> None:
    """FLUSHALL, a few times."""
    scene.hit(claimed=False)
    for _ in range(scene.random.randint(1, 3)):
        scene.stage.redis.flush()
        scene.pause(0.05, 0.4)
    scene.mended()


def slow_redis(scene: Scene) -> None:
    """Each message to and from Redis is late, up to more than an answer is worth."""
    scene.hit(claimed=False)
    scene.stage.redis_proxy.delay_seconds = scene.random.choice([0.01, 0.05, 0.2, 0.6])
    scene.pause(1.0, 2.5)
    scene.stage.redis_proxy.delay_seconds = 0.0
    scene.mended()


def step_clock(seconds: int) -> Blow:
    """Redis' clock jumps, and later jumps back."""

    def blow(scene: Scene) -> None:
        scene.hit(claimed=False)
        scene.stage.clock.set(seconds)
        scene.pause(0.3, 1.2)
        scene.stage.clock.set(0)
        scene.mended()

    return blow


# --- SMTP ---------------------------------------------------------------------------------------------------
def misbehave(doubt: bool = False, **rule: object) -> Blow:
    """The sink follows a rule a few times; with `doubt`, each time may leave one recipient uncertain."""

    def blow(scene: Scene) -> None:
        times = scene.random.randint(1, 4) if "share" not in rule and "delay" not in rule else None
        scene.hit(claimed=False)
        scene.stage.sink.behave({**rule, "count": times} if times else {**rule})
        applied = lambda: scene.stage.sink.applied()[0]  # noqa: E731
        wait_for("the rule is applied", lambda: applied() >= (times or 1), seconds=30)
        if "delay" in rule:
            scene.pause(1.0, 2.0)
        if "share" not in rule:
            scene.figures["applied"] = applied()
        if doubt or (handed_over() > 1 and rule["phase"] in ("mail", "rcpt", "data")):
            scene.allow(int(applied()) * handed_over())
        if "share" not in rule:
            scene.stage.sink.behave()
        scene.mended()

    return blow


def refuse(scene: Scene) -> None:
    """Nobody listens for a while: the relay dies in the middle of everything."""
    scene.allow_in_flight()
    scene.hit(claimed=False)
    scene.stage.sink.kill()
    scene.pause(0.2, 2.0)
    scene.stage.sink.start()
    scene.mended()


def disconnect(scene: Scene) -> None:
    """Every connection to the relay is reset, whatever it was doing, a few times."""
    scene.hit(claimed=False)
    for _ in range(scene.random.randint(1, 3)):
        scene.allow_in_flight()
        scene.stage.sink.disconnect()
        scene.pause(0.1, 0.5)
    scene.mended()


# --- people -------------------------------------------------------------------------------------------------
def change_rows(statement: str) -> Blow:
    """Somebody changes the recipients' table, several times, a seeded part of it each time."""

    def blow(scene: Scene) -> None:
        scene.hit(claimed=False)
        for _ in range(5):
            part = scene.random.randint(0, 9)
            scene.sql(statement, part)
            scene.pause(0.05, 0.2)
        scene.mended()

    return blow


def hold_snapshot(scene: Scene) -> None:
    """A REPEATABLE READ transaction with a snapshot stays open to the run's end."""
    scene.hit(claimed=False)
    scene.hold_snapshot()


def nothing(scene: Scene) -> None:
    """No blow: what a run is without one."""


def both(one: Blow, other: Blow) -> Blow:
    """Two blows at once."""

    def blow(scene: Scene) -> None:
        failed: list[BaseException] = []

        def strike(blow: Blow) -> None:
            try:
                blow(scene)
            except BaseException as error:  # noqa: BLE001 - told to the thread that waits
                failed.append(error)

        threads = [threading.Thread(target=strike, args=(b,)) for b in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    return blow
