"""The watch over an engine: what it makes of one look after the other."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest.serving.patience import Patience
from dsv4_stack.guest.serving.question import Answer, Question
from dsv4_stack.guest.serving.watch import Order, Sight, State, Watch

QUESTION = Question(model="m", prompt="abc", max_tokens=3, expect="^def$")
PATIENCE = Patience(ready_s=100, stall_s=30, quiet_s=10, hang_s=40, recheck_s=60, drain_s=5)
RIGHT, WRONG = Answer(text="def"), Answer(text="xyz")
LOST = Answer(is_lost=True)


def watch(question: Question | None = QUESTION, patience: Patience = PATIENCE) -> Watch:
    return Watch(question=question, patience=patience, began=0.0)


def up(now: float, *, moved: float = 0.0, in_flight: int = 0, answer: Answer | None = None, status: int = 200) -> Sight:
    movement = (("tokens", moved),) if status == 200 else None
    return Sight(now=now, status=status, movement=movement, in_flight=in_flight, answer=answer)


def ready(at: float = 10.0) -> Watch:
    """One that has become ready."""
    found = watch()
    assert found.look(up(at - 1)) == [Order.ASK]
    assert found.look(up(at, moved=1, answer=RIGHT)) == []
    assert found.is_open
    found.said.clear()
    return found


def test_it_asks_once_the_engine_is_up_and_opens_on_the_right_answer() -> None:
    found = watch()
    assert found.look(Sight(now=1)) == []
    assert (found.state, found.reason) == (State.STARTING, "the engine is not up yet")
    assert found.look(up(2)) == [Order.ASK]
    assert found.look(up(3)) == []
    assert found.reason == "the engine is up, and the golden question is asked"
    assert not found.is_open
    assert found.look(up(4, answer=RIGHT)) == []
    assert found.is_open
    assert (found.ready_after_s, found.answers, found.wrong) == (4, 1, 0)
    assert found.said == ["ready: 'abc' is answered with 'def'; 4 s after the start"]


def test_without_a_question_health_is_all_there_is() -> None:
    found = watch(None)
    assert found.look(up(2)) == []
    assert found.is_open
    assert found.said == ["ready: /health answers; there is no question to ask; 2 s after the start"]


def test_a_wrong_answer_is_asked_for_again_at_once_and_three_of_them_stand() -> None:
    found = watch()
    found.look(up(1))
    assert found.look(up(2, answer=WRONG)) == [Order.ASK]
    assert found.look(up(3, answer=WRONG)) == [Order.ASK]
    assert found.look(up(4, answer=WRONG)) == []
    assert (found.state, found.is_open, found.wrong) == (State.WRONG, False, 3)
    assert found.said == [
        "wrong answer, 1 of 3: 'abc' is answered with 'xyz', which has no ^def$",
        "wrong answer, 2 of 3: 'abc' is answered with 'xyz', which has no ^def$",
        "wrong answer, 3 of 3: 'abc' is answered with 'xyz', which has no ^def$",
        "wrong: 'abc' is answered with 'xyz', which has no ^def$",
    ]


def test_a_wrong_engine_is_asked_every_half_minute_and_opens_when_it_is_right_again() -> None:
    found = watch(patience=replace(PATIENCE, recheck_s=0))
    for now in (1, 2, 3, 4):
        found.look(up(now, answer=WRONG if now > 1 else None))
    assert found.look(up(33)) == [Order.ASK]
    assert found.look(up(34, answer=RIGHT)) == []
    assert found.is_open


def test_a_lost_answer_says_nothing_about_the_model() -> None:
    found = watch()
    found.look(up(1))
    assert found.look(up(2, answer=LOST)) == [Order.ASK]
    assert (found.answers, found.wrong) == (0, 0)


def test_it_asks_again_from_time_to_time_unless_told_not_to() -> None:
    found = ready(10)
    assert found.look(up(68)) == []
    assert found.look(up(69)) == [Order.ASK]
    assert found.look(up(70, moved=2, answer=RIGHT)) == []
    quiet = watch(patience=replace(PATIENCE, recheck_s=0))
    quiet.look(up(1))
    quiet.look(up(2, answer=RIGHT))
    assert all(quiet.look(up(now)) == [] for now in range(3, 1000, 9))


def test_one_wrong_answer_among_right_ones_closes_nothing() -> None:
    found = ready()
    assert found.look(up(70)) == [Order.ASK]
    assert found.look(up(71, moved=2, answer=WRONG)) == [Order.ASK]
    assert found.is_open
    assert found.look(up(72, moved=3, answer=RIGHT)) == []
    assert found.is_open


def test_a_hang_is_asked_about_then_refused_reported_and_ended() -> None:
    found = ready(10)
    assert found.look(up(11, moved=1, in_flight=2)) == []
    assert found.look(up(19, moved=1, in_flight=2)) == []
    assert found.look(up(20, moved=1, in_flight=2)) == [Order.ASK]
    assert found.is_open
    assert found.look(up(50, moved=1, in_flight=2)) == [Order.REPORT]
    assert (found.state, found.is_open, found.hangs) == (State.HUNG, False, 1)
    assert found.look(up(60, moved=1, in_flight=2)) == []
    assert found.look(up(65, moved=1, in_flight=2)) == [Order.END]
    assert found.is_over
    assert found.said == [
        "hung: 2 requests run, and nothing has moved for 40 s",
        "2 requests run, and nothing has moved for 40 s: the engine is ended",
    ]
    assert found.look(up(66, moved=1, in_flight=2)) == []


def test_an_engine_that_hangs_with_its_own_question_alone_is_noticed_too() -> None:
    found = ready(10)
    assert found.look(up(69, moved=1)) == [Order.ASK]
    assert found.look(up(108, moved=1)) == []
    assert found.look(up(109, moved=1)) == [Order.REPORT]
    assert found.state == State.HUNG


def test_a_hang_that_ends_by_itself_was_none() -> None:
    found = ready(10)
    found.look(up(20, moved=1, in_flight=1))
    found.look(up(50, moved=1, in_flight=1))
    assert found.state == State.HUNG
    assert found.look(up(52, moved=2, in_flight=1)) == []
    assert found.is_open
    assert found.said[-1] == "ready: the engine moves again"


def test_a_wrong_engine_that_hung_is_wrong_again() -> None:
    found = ready(10)
    found.look(up(69))
    for now in (70, 71, 72):
        found.look(up(now, moved=now, answer=WRONG))
    found.look(up(73, moved=72, in_flight=1))
    found.look(up(113, moved=72, in_flight=1))
    assert found.state == State.HUNG
    found.look(up(114, moved=114))
    assert found.state == State.WRONG


def test_a_long_prefill_is_no_hang_as_long_as_it_takes_blocks() -> None:
    found = ready(10)
    for step in range(100):
        orders = found.look(up(11 + 9 * step, moved=2 + step, in_flight=1, answer=RIGHT if step % 7 == 6 else None))
        assert set(orders) <= {Order.ASK}
        assert found.is_open


def test_a_client_that_reads_slowly_is_no_hang() -> None:
    """Its request is in flight and nothing moves, but the question is answered."""
    found, moved, asked = ready(10), 1, 0
    for now in range(11, 400):
        answer = RIGHT if asked > moved - 1 else None
        moved += answer is not None
        asked += Order.ASK in found.look(up(now, moved=moved, in_flight=1, answer=answer))
        assert found.is_open
    assert asked > 30


def test_an_api_that_does_not_answer_is_hung_sooner() -> None:
    found = ready(10)
    assert found.look(up(12, status=0)) == []
    assert found.look(up(20, status=0)) == [Order.REPORT]
    assert found.said == ["hung: the API does not answer, and nothing has moved for 10 s"]
    assert found.look(up(35, status=0)) == [Order.END]


def test_an_api_that_comes_back_is_ready_again() -> None:
    found = ready(10)
    found.look(up(20, status=503))
    assert found.state == State.HUNG
    assert found.look(up(22, moved=1)) == []
    assert found.is_open


def test_a_start_that_does_not_move_is_reported_once_for_each_stall() -> None:
    found = watch()
    assert found.look(Sight(now=1, progress=1)) == []
    assert found.look(Sight(now=30, progress=1)) == []
    assert found.look(Sight(now=31, progress=1)) == [Order.REPORT]
    assert found.look(Sight(now=32, progress=1)) == []
    assert found.look(Sight(now=50, progress=2)) == []
    assert found.look(Sight(now=79, progress=2)) == []
    assert found.look(Sight(now=80, progress=2)) == [Order.REPORT]
    assert found.said == ["the start has not moved for 30 s", "the start has not moved for 30 s"]


def test_a_start_that_takes_too_long_is_reported_and_ended() -> None:
    found = watch()
    found.look(Sight(now=99, progress=1))
    assert found.look(Sight(now=100, progress=2)) == [Order.REPORT, Order.END]
    assert (found.is_over, found.reason) == (True, "not ready after 100 s")


def test_a_question_that_is_never_answered_ends_the_start() -> None:
    found = watch()
    found.look(up(1))
    assert found.look(up(100)) == [Order.REPORT, Order.END]


def test_nothing_is_done_while_it_stops() -> None:
    found = ready()
    found.stop()
    assert (found.state, found.is_open) == (State.STOPPING, False)
    assert found.look(up(1000, in_flight=3)) == []


def test_a_busy_engine_is_neither_wrong_nor_hung() -> None:
    busy = Answer(refusal="503: later", is_busy=True)
    found, asked = ready(), 0
    for now in range(70, 1000, 2):
        orders = found.look(up(now, moved=1, answer=busy if found._is_asking else None))
        asked += Order.ASK in orders
        assert set(orders) <= {Order.ASK}
    assert found.state == State.READY
    assert found.said == ["the question is not taken: 503: later"]
    assert (found.wrong, found.hangs) == (0, 0)
    # Every `wrong_s`, and the look after.
    assert 20 < asked <= 930 / PATIENCE.wrong_s + 1


def test_a_busy_start_says_what_it_waits_for() -> None:
    found = watch()
    found.look(up(1))
    assert found.look(up(2, answer=Answer(refusal="429: later", is_busy=True))) == []
    assert (found.state, found.reason) == (State.STARTING, "the question is not taken: 429: later")
    assert found.look(up(2 + PATIENCE.wrong_s)) == [Order.ASK]
    assert found.look(up(3 + PATIENCE.wrong_s, answer=RIGHT)) == []
    assert found.is_open


def test_an_engine_whose_requests_are_not_known_is_not_idle() -> None:
    found = ready()
    assert found.look(replace(up(20, moved=1), in_flight=None)) == [Order.ASK]
    assert found.look(replace(up(50, moved=1), in_flight=None)) == [Order.REPORT]
    assert found.reason == "requests may run, and nothing has moved for 40 s"


def test_nothing_is_held_against_an_engine_while_nobody_looked() -> None:
    found = ready()
    found.look(up(12, moved=2, in_flight=1))
    found.pass_over(1000)
    assert found.look(up(1013, moved=2, in_flight=1)) == [Order.ASK]
    assert found.state == State.READY
    assert found.quiet_s(1013) == 1
    starting = watch(patience=replace(PATIENCE, ready_s=10_000))
    starting.look(Sight(now=1, progress=1))
    starting.pass_over(1000)
    assert starting.look(Sight(now=1002, progress=1)) == []
    assert starting.look(Sight(now=1031, progress=1)) == [Order.REPORT]


SIGHTS = st.lists(
    st.tuples(st.floats(0.1, 30), st.sampled_from([200, 200, 200, 0, 503]), st.integers(0, 3), st.integers(0, 2)),
    max_size=40,
)


@given(SIGHTS)
def test_whatever_comes_users_are_let_in_only_where_an_answer_was_right(
    sights: list[tuple[float, int, int, int]],
) -> None:
    found, now, asked, right = watch(), 0.0, False, False
    for pause, status, in_flight, moved in sights:
        now += pause
        answer = (WRONG if in_flight == 3 else RIGHT) if asked else None
        right = right or answer == RIGHT
        asked = Order.ASK in found.look(up(now, status=status, in_flight=in_flight, moved=moved, answer=answer))
        assert right or not found.is_open
        assert found.quiet_s(now) >= 0


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=100))
def test_an_idle_engine_is_never_hung(pauses: list[float]) -> None:
    """Nor one that answers each question before it counts as hung."""
    found, now, moved, asked = ready(), 10.0, 1, False
    for pause in pauses:
        now += pause
        moved += asked
        asked = Order.ASK in found.look(up(now, moved=moved, answer=RIGHT if asked else None))
        assert found.state == State.READY
