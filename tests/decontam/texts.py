"""Texts that are hard to normalise, and documents made of the items' words, for hypothesis."""

from hypothesis import strategies as st

SCRIPTS = (
    "abcdefgXYZ ÄÖÜßÉéñ İıſK",
    "αβγΣσς ΑΒΓ",
    "абвГДЕёЁ",
    "中文测试汉字苹果 、。，！",
    "ひらがなカタカナｶﾞﾊﾟー",
    "한국어 각ᄀ\u1161\u11a8",
    "हिन्दी क्ष ि",
    "ไทย ก็ น้ำ",
    "ខ្មែរ မြန်မာ ລາວ",
    "العربية مُحَمَّد محـمد یک يك أإآ ا\u0654\u0653",
    "שָׁלוֹם",
    "I\u0307i\u0307 \u02bc\u02bb 1\ufe0f\u20e3 葛\U000e0100 a\u034fb \U000e0061",
    "e\u0301a\u0308\u0323o\u0302",
    "ﬁﬂ½²①Ⅷ℡ﷺ",
    " \t\n\r.,;:!?()[]{}\"'\\/-_\u200b\u00ad\u200d\u2028",
    "😀👍🏽🇩🇪\ufe0f𝕳𝒆",
    "0123456789٣४",
)
characters = st.one_of(*(st.sampled_from(script) for script in SCRIPTS), st.characters(exclude_categories=["Cs"]))
hard_texts = st.text(characters, max_size=60)

WORDS = ("red", "Blue", "GREEN", "one", "two", "the", "a", "中", "文", "é", "हिन्दी", "e\u0301")
"""Few, so that runs are shared by chance."""
PLAIN_GAPS = (" ", ", ", "\n", " - ", '" ', "\\ ", " < ", " & ", " <int>", "&nosuch; ")
SIGNS = (
    "<br />",
    "</p><p>",
    "&nbsp;",
    r"\n",
    r"\\n",
    r"\u0020",
    "<b>",
    "&lt;br&gt;",
    "&amp;amp;nbsp;",
    "&#xe9;",
    r"\xe9",
)
"""Markup, which separates words or joins them."""
GAPS = (*PLAIN_GAPS, *SIGNS, '<td class=\\"x\\">', "</p>\n<p>")
word_runs = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), min_size=1, max_size=40).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)
