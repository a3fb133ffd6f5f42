"""Plain sentences about the valley's days, without a number in them: the text that needles are hidden in."""

# ruff: noqa: RUF001 - Chinese is written with its own signs

from typing import Literal

from qwen2eval.demo.dice import Dice, listed
from qwen2eval.demo.facts import ANIMALS, CHINESE, COLOURS, DISHES, GOODS, JOBS, TOOLS
from qwen2eval.demo.world import World

Language = Literal["en", "zh"]
_WEATHER = listed("rain wind snow mist sun frost hail thunder")
_TIMES = ("In the morning", "At noon", "In the evening", "At night", "In spring", "In winter", "On market day")
_PLACES = listed("bridge gate well mill square harbour garden tower")
_DEEDS = ("sings a song", "sweeps the yard", "looks for wood", "waits for the boat", "tells a story", "rests a while",
          "opens the shop", "counts the stars")  # fmt: skip
_ENGLISH = (
    "{time} the {job} of {town} {deed}.",
    "The road from {town} to {town2} goes by the {place}.",
    "{time} the {weather} comes over {town}.",
    "A {colour} {animal} sleeps at the {place}.",
    "{person} and {person2} meet at the {place} of {town}.",
    "There is {dish} for all at the {place}.",
    "The {animal} runs away, and the {job} runs after it.",
    "{person} has lost a {tool} near the {place}.",
    "Nobody in {town} likes the {weather}.",
    "{time} {person} {deed}.",
    "They trade {goods} for {dish} in {town}.",
    "The {job} asks for a new {tool}.",
    "Behind the {place} grows a {colour} flower.",
    "{person} reads a letter from {town}, and then {deed}.",
)
_CHINESE = (
    "{who}在{place}边唱歌。",
    "{time}，{who}和{who2}去集市。",
    "{time}下起了{weather}。",
    "{place}边有一只{animal}。",
    "{who}给大家做了{dish}。",
    "{who}的门前开着{colour}的花。",
    "{time}，{who}在等船。",
    "大家都不喜欢{weather}。",
)
_CHINESE_TIMES = ("早上", "中午", "晚上", "春天", "冬天")
_CHINESE_PLACES = ("桥", "井", "河", "山", "门", "塔")
_CHINESE_WEATHER = ("雨", "雪", "雾", "霜")


def sentence(world: World, dice: Dice, language: Language = "en") -> str:
    """Return one sentence."""
    return _chinese(world, dice) if language == "zh" else _english(world, dice)


def paragraph(world: World, dice: Dice, n_sentences: int, language: Language = "en") -> str:
    """Return some sentences in a row."""
    return ("" if language == "zh" else " ").join(sentence(world, dice, language) for _ in range(n_sentences))


def _english(world: World, dice: Dice) -> str:
    (person, person2), (town, town2) = dice.some(world.people, 2), dice.some(world.towns, 2)
    return dice.pick(_ENGLISH).format(
        time=dice.pick(_TIMES),
        job=dice.pick(JOBS),
        town=town.name,
        town2=town2.name,
        deed=dice.pick(_DEEDS),
        place=dice.pick(_PLACES),
        weather=dice.pick(_WEATHER),
        colour=dice.pick(COLOURS),
        animal=dice.pick(ANIMALS),
        person=person.short,
        person2=person2.short,
        dish=dice.pick(DISHES),
        tool=dice.pick(TOOLS),
        goods=dice.pick(GOODS),
    )


def _chinese(world: World, dice: Dice) -> str:
    who, who2 = dice.some(world.chinese, 2)
    _, animals, colours, dishes = (relation.values for relation in CHINESE)
    return dice.pick(_CHINESE).format(
        who=who.name,
        who2=who2.name,
        time=dice.pick(_CHINESE_TIMES),
        place=dice.pick(_CHINESE_PLACES),
        weather=dice.pick(_CHINESE_WEATHER),
        animal=dice.pick(animals),
        colour=dice.pick(colours),
        dish=dice.pick(dishes),
    )
