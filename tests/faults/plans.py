"""What is done before there is anything in flight: to planners, and to a relay that is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services import wait_for

from .wire import Strike

if TYPE_CHECKING:
    from .scene import Scene
    from .zygote import Child


def _planner(scene: Scene, number: int) -> Child:
    return scene.fleet.verb("plan", scene.folder / f"planner-{number}.log", MAILFLEET_POD_NAME=f"planner-{number}")


def _planned(scene: Scene) -> bool:
    return bool(scene.sql("SELECT 1 FROM run WHERE id = %s AND state = 'Planned'", scene.fleet.run))


def killed(scene: Scene) -> None:
    """Planners are killed until one is not; half of them while their pages are being committed."""
    scene.audience = scene.fleet.audience()
    for number in range(scene.random.randint(1, 3)):
        if scene.random.random() < 0.5:
            strike = scene.stage.ledger_proxy.strike(Strike("pages", "pause"))
            child = _planner(scene, number)
            scene.stage.ledger_proxy.struck(strike)
            child.kill()
            scene.stage.ledger_proxy.disarm(strike)
        else:
            child = _planner(scene, number)
            scene.pause(0.0, 0.25)
            child.kill()
        child.wait(20)
        if _planned(scene):  # it was faster than the kill
            break
    last = _planner(scene, 9)
    assert last.wait(60) == 0
    assert _planned(scene)
    scene.open()


def twice(scene: Scene) -> None:
    """Two planners at once; then a third, which finds it done."""
    children = [_planner(scene, n) for n in (1, 2)]
    codes = [c.wait(60) for c in children]
    assert codes == [0, 0], codes
    assert _planned(scene)
    assert _planner(scene, 3).wait(60) == 0
    scene.open()


def older(scene: Scene) -> None:
    """A planner stands still with its pages; the campaign is edited and planned; then the old one goes on."""
    strike = scene.stage.ledger_proxy.strike(Strike("pages", "pause"))
    child = _planner(scene, 1)
    scene.stage.ledger_proxy.struck(strike)
    fleet = scene.fleet
    fleet.definition = scene.definition(subject="{{ first_name }}, our newer news")
    assert fleet.runs.edit(fleet.run, fleet.definition)
    after = scene.random.random() < 0.5
    if after:
        scene.plan()
    scene.stage.ledger_proxy.disarm(strike)
    assert child.wait(60) == 0
    if not after:
        assert not _planned(scene), "the older plan was published"
        scene.plan()
    assert _planned(scene)
    scene.open()
    subjects = wait_for("mails have come", scene.stage.sink.messages, seconds=30)
    assert all(b"our newer news" in body for _, body in subjects)


def relay_down_at_start(scene: Scene) -> None:
    """Nobody listens when the senders start, for up to three seconds."""
    scene.stage.sink.kill()
    try:
        scene.plan()
        scene.open()
        scene.pause(0.5, 3.0)
    finally:
        scene.stage.sink.start()
    scene.mended()
