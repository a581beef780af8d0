"""BabyAI in words: the same episode from a seed, nothing told that is not in view, success as minigrid judges it."""

import hashlib
import inspect
import os
import random
import re
import subprocess
import sys

import llguidance
import pytest
from conftest import ROOT
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from helpers import CourseError
from helpers.play.babyai import LEVELS, BabyAI

if sys.platform == "win32":
    pytest.skip("minigrid is not supported on Windows", allow_module_level=True)

SEEDS = range(20)
HOSTILE = {
    "empty": "",
    "long": "forward " * 12_500,  # 100 kB
    "new line": "forward\n",
    "two at once": "forward; left",
    "space": " left",
    "capitals": "FORWARD",
    "Japanese": "前に進む",
    "control tokens": "forward<|im_end|>",
    "control token": "<|im_end|>",
    "None": "None",
    "nothing at all": None,
    "a number": "2",
    "half a character": "\ud800",
    "minigrid's own": "done",
    "a name in Python": "__class__",
}


@pytest.fixture(scope="module", params=LEVELS)
def world(request):
    return BabyAI(request.param)


def random_walk(world, seed):
    """[(action, Step)] of a walk at random to the end of the episode."""
    draw = random.Random(seed)
    world.reset(seed)
    walk = []
    while not walk or not walk[-1][1].done:
        action = draw.choice(world.legal_actions())
        walk.append((action, world.step(action)))
    return walk


def state(world):
    """What minigrid itself holds: map, place, direction, hands, steps."""
    env = world._env
    carried = env.carrying and (env.carrying.type, env.carrying.color)
    return env.hash(64), tuple(env.agent_pos), env.agent_dir, carried, env.step_count


def things(observation):
    """[(name, ahead, right, mark)] of the last line of an observation."""
    line = re.fullmatch(r"In view: (.*)\.", observation.splitlines()[2])[1]
    if line == "nothing":
        return []
    found = []
    for item in line.split("; "):
        pattern = r"(\D+?) (?:(\d) ahead)? ?(?:(\d) (left|right))?(?: \((\w+) at start\))?"
        name, ahead, across, side, mark = re.fullmatch(pattern, item).groups()
        right = int(across or 0) * (-1 if side == "left" else 1)
        found.append((name, int(ahead or 0), right, mark))
    return found


def on_the_map(world, ahead, right):
    """The place on minigrid's map of a place in view."""
    x, y = world._env.agent_pos + ahead * world._env.dir_vec + right * world._env.right_vec
    return int(x), int(y)


def name_of(cell):
    door = ""
    if cell.type == "door":
        door = "open " if cell.is_open else "locked " if cell.is_locked else "closed "
    return f"{door}{cell.color} {cell.type}"


def digest():
    """A fingerprint of some episodes of every level; another process runs this very text."""
    told = []
    for level in LEVELS:
        world = BabyAI(level)
        told += [world.slipping_bot(seed, 0.1, 5) for seed in range(5)]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def test_the_same_seed_gives_the_same_episode(world):
    first = [(world.reset(seed), random_walk(world, seed)) for seed in range(5)]
    other = BabyAI(world.level)
    again = [(other.reset(seed), random_walk(other, seed)) for seed in range(5)]
    assert first == again
    rooms = [(world.reset(seed), state(world))[1] for seed in range(5)]
    assert len(set(rooms)) == 5
    slips = [world.slipping_bot(3, 0.5, rng_seed).steps for rng_seed in range(4)]
    assert slips == [world.slipping_bot(3, 0.5, rng_seed).steps for rng_seed in range(4)]
    assert slips[0] != slips[1] or slips[0] != slips[2]


def test_another_process_plays_the_same_episodes_and_prints_nothing_else():
    imports = "import hashlib\nfrom helpers.play.babyai import LEVELS, BabyAI\n"
    code = imports + inspect.getsource(digest) + "print(digest())"
    found = set()
    for hashes in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hashes}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.stderr == ""
        found.add(done.stdout)
    assert found == {digest() + "\n"}


def test_minigrid_is_loaded_when_a_world_is_made_and_makes_no_noise():
    code = """
import sys
from helpers.play.babyai import BabyAI
assert not {"minigrid", "gymnasium", "pygame"} & set(sys.modules)
world = BabyAI("PutNextLocalS5N3")
for seed in range(20):  # many of these rooms are drawn more than once
    world.reset(seed)
assert "pygame" in sys.modules
"""
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_expert_succeeds_and_a_random_walker_mostly_does_not(world):
    traces = [world.slipping_bot(seed, 0) for seed in SEEDS]
    assert [trace.seed for trace in traces if not trace.success] == []
    walked = 0
    for seed in SEEDS:
        random_walk(world, seed)
        walked += world.success()
    assert walked <= 10  # of 20
    assert world.bot_actions(4) == [action for _, action in traces[4].steps]
    longest = max(len(trace.steps) for trace in traces)
    assert longest <= world.max_steps


def test_a_trace_is_what_the_world_answers(world):
    for slip in (0, 0.25):
        for seed in range(8):
            trace = world.slipping_bot(seed, slip)
            observation, done = world.reset(seed), False
            for seen, action in trace.steps:
                assert seen == observation and not done
                assert action in world.legal_actions()
                observation, done = (step := world.step(action)).observation, step.done
            assert done and world.success() == trace.success


@pytest.mark.parametrize("level", ["GoToLocal", "PickupLoc"])
def test_a_slipping_expert_fails_more_often_the_more_it_slips(level):
    world = BabyAI(level)
    failed = {
        slip: sum(not world.slipping_bot(seed, slip).success for seed in range(30))
        for slip in (0, 0.25, 0.6)
    }
    assert failed[0] == 0 and failed[0.25] < failed[0.6], failed
    assert 5 <= failed[0.25] <= 15, failed


def test_where_the_expert_would_leave_the_level_it_acts_at_random():
    """In this room its way is blocked, so it would pick something up, which is no action here."""
    world = BabyAI("GoToLocal")
    assert set(world.bot_actions(94)) <= set(world.legal_actions())


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_action_changes_nothing_and_costs_a_step(world, kind):
    before = world.reset(1)
    held = state(world)
    step = world.step(HOSTILE[kind])
    assert state(world) == held
    assert step.observation == before and not step.done and not world.success()
    assert re.fullmatch(
        r"(The answer is empty|That is no action here): answer with [^.]+\.", step.error
    )
    assert ("empty" in step.error) == (not HOSTILE[kind])
    for action in world.legal_actions():
        assert action in step.error
    # the next good action does what it would have done at once
    after = world.step("left")
    world.reset(1)
    assert after == world.step("left") and after.error is None
    assert after.observation != before


def test_an_action_of_another_level_is_none_here():
    world = BabyAI("GoToLocal")
    world.reset(0)
    held = state(world)
    for action in ("pickup", "drop", "toggle"):
        assert world.step(action).error
    assert state(world) == held


@pytest.mark.parametrize("action", ["left", "no action"])
def test_an_endless_loop_ends_at_the_last_step(world, action):
    world.reset(2)
    steps = [world.step(action) for _ in range(world.max_steps)]
    assert [step.done for step in steps] == [False] * (world.max_steps - 1) + [True]
    assert not world.success()
    with pytest.raises(CourseError, match="begin one with reset"):
        world.step(action)
    world.reset(2)
    assert not world.step(action).done
    assert not world.success()


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(CourseError, match="begin one with reset"):
        BabyAI().step("left")


@pytest.mark.parametrize("limit", [1, 7])
def test_the_limit_of_steps_is_the_caller_s(limit):
    world = BabyAI("PickupLoc", max_steps=limit)
    assert max(len(random_walk(world, seed)) for seed in SEEDS) == limit
    assert f"you have {limit}." in world.rules


def test_success_is_minigrid_s_reward(world):
    """The same actions in an environment of our own: it ends with a reward where we say success."""
    import gymnasium

    env = gymnasium.make(f"BabyAI-{world.level}-v0", max_steps=world.max_steps)
    outcomes = set()
    for seed in range(8):
        for slip in (0, 0.6):
            trace = world.slipping_bot(seed, slip)
            env.reset(seed=seed)
            rewards = [env.step(env.unwrapped.actions[action]) for _, action in trace.steps]
            assert [reward[1] > 0 for reward in rewards[:-1]] == [False] * (len(rewards) - 1)
            assert (rewards[-1][1] > 0) == trace.success
            outcomes.add(trace.success)
    assert outcomes == {True, False}


def test_going_to_a_thing_succeeds_exactly_when_the_text_shows_it_ahead():
    """A judge that reads nothing but the observation agrees at every step."""
    world = BabyAI("GoToLocal")
    reached = 0
    for seed in range(60):
        wanted = re.search(r"Mission: go to (?:the|a) (.+)\.", world.reset(seed))[1]
        walk = random_walk(world, seed)
        for _, step in walk[:-1]:
            assert f"Ahead: {wanted}." not in step.observation
        assert (f"Ahead: {wanted}." in walk[-1][1].observation) == world.success()
        reached += world.success()
    assert 0 < reached < 60


def test_an_observation_names_what_is_in_view_and_nothing_else(world):
    """Each thing named stands there on minigrid's own map and is seen; each thing seen is named."""
    hidden = 0
    for seed in SEEDS:
        draw, step, observation = random.Random(seed), None, world.reset(seed)
        while step is None or not step.done:
            env = world._env
            named = {on_the_map(world, a, r): name for name, a, r, _ in things(observation)}
            assert len(named) == len(things(observation))
            held, seen = {}, {}
            for x in range(env.width):
                for y in range(env.height):
                    cell = env.grid.get(x, y)
                    if cell and cell.type != "wall" and (x, y) != tuple(env.agent_pos):
                        held[x, y] = name_of(cell)
                        if env.in_view(x, y) and env.agent_sees(x, y):
                            seen[x, y] = name_of(cell)
            assert named == seen
            hidden += len(held) - len(seen)
            ahead = env.grid.get(*env.front_pos)
            shown = "free" if ahead is None else "wall" if ahead.type == "wall" else name_of(ahead)
            assert f"\nAhead: {shown}." in observation
            if "pickup" in world.actions:
                carried = name_of(env.carrying) if env.carrying else "nothing"
                assert f". Carrying: {carried}.\n" in observation
            step = world.step(draw.choice(world.legal_actions()))
            observation = step.observation
    assert hidden > 100, "nothing was out of view, so the comparison showed nothing"


def test_things_are_named_nearest_first(world):
    for seed in SEEDS:
        places = [abs(right) + ahead for _, ahead, right, _ in things(world.reset(seed))]
        assert places == sorted(places)


def test_the_side_that_a_mission_names_stays_as_at_the_start():
    """Marked things of the wanted kind are those that minigrid chose at the start."""
    world = BabyAI("PickupLoc")
    marks, others = 0, 0
    for seed in range(120):
        observation, done = world.reset(seed), False
        wanted = world._env.instrs.desc
        if not wanted.loc:
            assert {mark for *_, mark in things(observation)} <= {None}
            continue
        draw = random.Random(seed)
        while not done:
            for name, ahead, right, mark in things(observation):
                cell = world._env.grid.get(*on_the_map(world, ahead, right))
                color, kind = name.split()
                if wanted.type in (None, kind) and wanted.color in (None, color):
                    chosen = any(cell is each for each in wanted.obj_set)
                    assert (mark is not None) == chosen, (seed, observation)
                    marks, others = marks + chosen, others + (not chosen)
            step = world.step(draw.choice(["left", "right", "forward", "forward"]))
            observation, done = step.observation, step.done
    assert marks > 100 and others > 20, (marks, others)


def test_observations_are_short(world):
    lengths = [len(seen) for seed in SEEDS for seen, _ in world.slipping_bot(seed, 0).steps]
    assert min(lengths) >= 50 and max(lengths) <= 450
    assert 70 <= sum(lengths) / len(lengths) <= 220


def test_the_grammar_takes_the_legal_actions_and_nothing_else(world):
    """Every text that the grammar lets through, followed byte by byte, is an action."""
    lark = gbnf_to_lark(world.grammar())
    whole, begun = set(), [b""]
    while begun:
        text = begun.pop()
        matcher = LLMatcher(llguidance.LLTokenizer("byte"), lark)
        assert not matcher.get_error() and len(text) < 20
        assert matcher.try_consume_tokens(list(text)) == len(text)
        if matcher.is_accepting():
            whole.add(text.decode())
        begun += [text + bytes([n]) for n in range(256) if matcher.validate_tokens([n])]
    assert whole == set(world.legal_actions())


def test_the_rules_name_every_action_and_no_other(world):
    named = set(re.findall(r"^(\w+):", world.rules, re.M))
    assert named == set(world.legal_actions()) == set(world.actions)
    assert world.legal_actions() == sorted(world.actions)


def test_what_cannot_be_made_is_said_in_a_sentence(monkeypatch):
    with pytest.raises(CourseError, match=r"no level 'BossLevel' here; take GoToLocal, "):
        BabyAI("BossLevel")
    with pytest.raises(CourseError, match="at least one step"):
        BabyAI(max_steps=0)
    with pytest.raises(CourseError, match="whole number from 0 on, not -1"):
        BabyAI().reset(-1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "minigrid", None)
        with pytest.raises(CourseError, match="run python -m pip install -r requirements.txt"):
            BabyAI()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(CourseError, match="do not support on Windows"):
        BabyAI()


def test_the_picture_of_a_room_changes_when_somebody_moves():
    room = BabyAI("GoToLocal")
    room.reset(5)
    before = room.picture()
    room.step("left")
    assert before.shape == (192, 192, 3) and before.dtype == "uint8"
    assert (before != room.picture()).any()
