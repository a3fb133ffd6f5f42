"""What is known of the people and towns of the valley, and the sentences that say it. All of it is made up here."""

# ruff: noqa: RUF001 - Chinese is written with its own signs

from dataclasses import dataclass

from qwen2eval.demo.dice import listed

JOBS = listed(
    "baker fisher smith weaver miller potter teacher farmer carpenter tailor painter nurse gardener ferryman "
    "beekeeper shepherd"
)
ANIMALS = listed("goat cat dog hen duck sheep horse rabbit donkey goose parrot turtle")
COLOURS = listed("red blue green yellow black white brown grey purple pink")
DISHES = listed("soup bread rice beans fish cheese eggs noodles porridge pie dumplings salad")
TOOLS = listed("hammer lantern rope ladder bucket needle spade saw kettle basket brush whistle")
GOODS = listed("salt wool honey paper glass tea candles bricks silk butter boats bells")
RIVERS = listed("Aldra Bremo Cassel Dunra Eskel Forna Gelda Hurst")
HILLS = listed("Oak Moss Stone Cloud Fox Thorn Maple Raven")


@dataclass(frozen=True)
class Relation:
    """One thing that is known of every person, or of every town."""

    name: str
    values: tuple[str, ...]
    """What it can be; wrong choices are taken from here."""
    statements: tuple[str, ...]
    """Sentences of the corpus, with {who} and {value}."""
    questions: tuple[str, ...]
    """Asks of it, with {who} and {short}; follows an opening of `OPENINGS`."""


OPENINGS = (
    "The town book has a page on {who};",
    "Look at the line of {who} in the long list;",
    "At the gate a guard asks for {who};",
)
"""Begin a question, so that it has the 13 words which a strict n-gram needs; each is short of 13 without the name."""

PEOPLE = (
    Relation(
        "job",
        JOBS,
        ("{who} works as a {value}.", "The work of {who} is that of a {value}.", "By day {who} is a {value}."),
        ("what is the daily work of {short}?", "as what does {short} earn a living?"),
    ),
    Relation(
        "animal",
        ANIMALS,
        ("{who} keeps a {value}.", "The animal of {who} is a {value}.", "Beside {who} walks a {value}."),
        ("which animal does {short} keep at the house?", "what sort of animal has {short}?"),
    ),
    Relation(
        "colour",
        COLOURS,
        ("{who} likes {value} best.", "The colour of {who} is {value}.", "The door of {who} is {value}."),
        ("which colour does {short} like best of all?", "what is the colour that {short} takes?"),
    ),
    Relation(
        "dish",
        DISHES,
        ("{who} eats {value}.", "The dish of {who} is {value}.", "In the pot of {who} there is {value}."),
        ("what does {short} eat on most days?", "which dish is the one of {short}?"),
    ),
    Relation(
        "tool",
        TOOLS,
        ("{who} carries a {value}.", "The tool of {who} is a {value}.", "In the hand of {who} is a {value}."),
        ("which tool does {short} carry to the field?", "what does {short} hold in the hand?"),
    ),
)
TOWNS = (
    Relation(
        "goods",
        GOODS,
        ("{who} sells {value}.", "The market of {who} is known for {value}.", "From {who} comes the best {value}."),
        ("what is sold at the market of {short}?", "for which goods is {short} known?"),
    ),
    Relation(
        "river",
        RIVERS,
        ("{who} lies on the {value}.", "The river at {who} is the {value}.", "The {value} runs by {who}."),
        ("which river runs by the walls of {short}?", "on which river does {short} lie?"),
    ),
    Relation(
        "hill",
        HILLS,
        ("Over {who} is the {value} Hill.", "The hill of {who} is the {value} Hill.", "{value} Hill is at {who}."),
        ("what is the name of the hill at {short}?", "which hill stands over {short}?"),
    ),
    Relation(
        "flag",
        COLOURS,
        ("The flag of {who} is {value}.", "{who} has a {value} flag.", "Over {who} flies a {value} flag."),
        ("which colour has the flag on the tower of {short}?", "what colour is the flag of {short}?"),
    ),
)
TOWN_OPENINGS = (
    "The big map shows the roads to {who};",
    "A traveller has come the long way to {who};",
    "On the third page we read of {who};",
)

CHINESE = (
    Relation(
        "职业",
        ("农民", "老师", "医生", "木匠", "铁匠", "渔夫", "裁缝", "厨师", "画家", "牧人"),
        ("{who}是{value}。", "{who}的工作是{value}。", "在村里，{who}当{value}。"),
        ("{who}平时做什么工作？", "{who}是做什么的？"),
    ),
    Relation(
        "动物",
        ("山羊", "小猫", "小狗", "母鸡", "鸭子", "白马", "兔子", "驴子", "乌龟", "鹦鹉"),
        ("{who}养了一只{value}。", "{who}的动物是{value}。", "{who}家里有{value}。"),
        ("{who}家里养什么动物？", "{who}养的是什么？"),
    ),
    Relation(
        "颜色",
        ("红色", "蓝色", "绿色", "黄色", "黑色", "白色", "棕色", "灰色", "紫色", "橙色"),
        ("{who}喜欢{value}。", "{who}最爱的颜色是{value}。", "{who}家的门是{value}。"),
        ("{who}最喜欢哪种颜色？", "{who}爱什么颜色？"),
    ),
    Relation(
        "食物",
        ("米饭", "面条", "豆子", "鸡蛋", "烤鱼", "馒头", "饺子", "白粥", "青菜", "豆腐"),
        ("{who}常吃{value}。", "{who}的饭是{value}。", "{who}的锅里有{value}。"),
        ("{who}每天最常吃什么？", "{who}吃的是什么？"),
    ),
)
CHINESE_OPENINGS = ("请看山谷的名册，", "门口的卫兵问，", "书里的一页写着，")
FAMILY_CHARACTERS = "林江石田白高沈方叶丁"
GIVEN_CHARACTERS = "明云河山雪竹星春海月松梅"
