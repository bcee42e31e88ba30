"""Which numbers of a source text are missing from its translation, between English and Korean.

Digits are compared first, which settles most pairs at the cost of two regular expressions. What is then still
missing is looked for in every form in which a translator may rightly have written it: scaled (``3억`` is
``300 million``), as a word (``3`` is ``세``), as a month, on the other half of the clock, as a decade.
Numbers that the source writes as words are not checked: nothing says which words are counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# \d\d* where \d+ would do: `re` looks for a first character of a set much faster than for a repetition.
_DIGITS = re.compile(r"\d\d*(?:,\d{3})*(?:\.\d+)*")
# Not the digits of an identifier ("IPv6", "Latin-1", "P1"), which no translator writes as a word.
_BARE_DIGITS = re.compile(
    r"(?<![A-Za-z0-9_.-])\d+(?:,\d{3})*(?:\.\d+)*(?!-?[A-Za-z_])|(?<!\d)\d+(?=st\b|nd\b|rd\b|th\b|s\b)"
)

_KOREAN_SCALE = {"십": 10, "백": 100, "천": 1_000, "만": 10**4, "억": 10**8, "조": 10**12, "경": 10**16}
_ENGLISH_SCALE = {
    "hundred": 100,
    "thousand": 1_000,
    "k": 1_000,
    "million": 10**6,
    "m": 10**6,
    "mn": 10**6,
    "mil": 10**6,
    "billion": 10**9,
    "bil": 10**9,
    "b": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
}
_ENGLISH_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_ENGLISH_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

# A number with everything that scales it: "3억 5천만", "1만 5,000", "2.5 million", "4.2-3.9 million".
_KOREAN_NUMBER = re.compile(r"(?<![\d,.])(?:\d[\d,.]*\s?[십백천만억조경]+\s?)+(?:\d[\d,]*)?")
_ENGLISH_NUMBER = re.compile(
    r"(?<![\d,.])(?:(\d[\d,.]*)\s?(?:[-–~]|to|and)\s?)?(\d[\d,.]*)[\s-]?(hundred|thousand|million|billion|trillion|bil|mil|bn|mn|[kmb])\b",
    re.IGNORECASE,
)
_ENGLISH_SPELLED = re.compile(
    r"\b(?:(" + "|".join(_ENGLISH_TENS[2:]) + r")[\s-])?(" + "|".join(_ENGLISH_UNITS + _ENGLISH_TENS[2:]) + r")\b"
    r"(?:[\s-](hundred|thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)

# Words that stand for a number. A Korean count begins a word ("중요한" holds no "한"); the Sino-Korean digits, which
# are also ordinary syllables, need the counter that they are used with.
_BEGIN = r"(?<![가-힣])"
_COUNTER = (
    r"(?=\s?(?:번|차|층|등|위|월|년|중|단|인|명|대|개|가지|주|일|분|초|배|점|급|회|세|호|종|원|면|각|부|시|군|곳|쪽|"
    r"사람|달|해|살|마리|권|장|잔|줄|자리|편|쌍|백|천|만|억))"
)
_KOREAN_WORDS = {
    0: r"영|제로|없",
    1: rf"{_BEGIN}(?:한{_COUNTER}|하나|첫|단일|최초|하루|매{_COUNTER}|일{_COUNTER})",
    2: rf"{_BEGIN}(?:두{_COUNTER}|둘|양쪽|이틀|이{_COUNTER})",
    3: rf"{_BEGIN}(?:세{_COUNTER}|셋|석|사흘|삼{_COUNTER})",
    4: rf"{_BEGIN}(?:네{_COUNTER}|넷|넉|나흘|사{_COUNTER})",
    5: rf"다섯|{_BEGIN}오{_COUNTER}",
    6: rf"여섯|{_BEGIN}육{_COUNTER}",
    7: rf"일곱|{_BEGIN}칠{_COUNTER}",
    8: rf"여덟|{_BEGIN}팔{_COUNTER}",
    9: rf"아홉|{_BEGIN}구{_COUNTER}",
    10: rf"{_BEGIN}(?:열|십)",
    11: r"열하나|열한|십일",
    12: r"열둘|열두|십이|정오|자정",
    15: r"열다섯|십오",
    20: r"스물|스무|이십",
    24: r"하루|스물네|이십사|자정",
    30: rf"서른|삼십|{_BEGIN}반",
    40: r"마흔|사십",
    50: r"쉰|오십|절반",
    60: r"예순|육십",
    100: rf"{_BEGIN}백|세기",
    1000: rf"{_BEGIN}천",
}
_ENGLISH_WORDS = {
    0: r"zero|midnight|nil",
    1: r"one|once|first|single|jan(?:uary)?|daily|annual\w*|yearly|monthly|per|every|i",
    2: r"two|twice|second|double\w*|both|feb(?:ruary)?|couple|fortnight|biweekly|ii",
    3: r"three|third\w*|triple\w*|thrice|trio|mar(?:ch)?|iii",
    4: r"four|fourth\w*|quarter\w*|apr(?:il)?|quad\w*|iv",
    5: r"five|fifth\w*|may",
    6: r"six|sixth\w*|june?|vi",
    7: r"seven|seventh\w*|july?|vii",
    8: r"eight|eighth\w*|aug(?:ust)?|viii",
    9: r"nine|ninth\w*|sept?(?:ember)?|ix",
    10: r"ten|tenth\w*|oct(?:ober)?|decades?|teen\w*",
    11: r"eleven|eleventh|nov(?:ember)?|xi",
    12: r"twelve|twelfth|dec(?:ember)?|dozens?|noon|midnight|xii",
    13: r"thirteen\w*|xiii",
    14: r"fourteen\w*|xiv",
    15: r"fifteen\w*|xv",
    16: r"sixteen\w*|hex\w*|xvi",
    20: r"twenty|twentieth|twenties|xx",
    24: r"daily|midnight|twenty-four",
    30: r"thirty|thirties|thirtieth|half",
    40: r"forty|forties|fortieth",
    50: r"fifty|fifties|fiftieth|half",
    60: r"sixty|sixties|sixtieth|hour|minute",
    90: r"ninety|nineties|ninetieth",
    100: r"hundred\w*|centur\w+",
    1000: r"thousand\w*|millenni\w+",
}
_KOREAN = {value: re.compile(words) for value, words in _KOREAN_WORDS.items()}
_ENGLISH = {value: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for value, words in _ENGLISH_WORDS.items()}
_ONE_OF = re.compile(r"(?<![\d.,])1\s?(?:년|개월|달|주|일|시간|분|초|명|인|개|차|위|회|번|배)")
_ARTICLE = re.compile(r"\b(?:an?|top)\b", re.IGNORECASE)
_CLOCK = re.compile(r"\b[ap]\.?\s?m\b|\d\s?시|\d:\d", re.IGNORECASE)
_HALF = re.compile(r"\bhalf\b|(?<![가-힣])반|절반", re.IGNORECASE)


def lost(source: str, hypothesis: str) -> list[str]:
    """The numbers written in digits in ``source`` that ``hypothesis`` holds in no form, by first appearance."""
    numbers = _DIGITS.findall(source)
    if not numbers:
        return []
    found = _DIGITS.findall(hypothesis)
    if numbers == found:
        return []
    there = Counter(found)
    missing = list((Counter(numbers) - there).elements())
    return _not_rewritten(source, hypothesis, missing, there - Counter(numbers)) if missing else []


def _not_rewritten(source: str, hypothesis: str, missing: list[str], there: Counter[str]) -> list[str]:
    """Those of ``missing`` that are not written in another form; ``there`` are the digits not yet accounted for."""
    source, hypothesis = unicodedata.normalize("NFKC", source), unicodedata.normalize("NFKC", hypothesis)
    written = Counter(_plain(number) for number in there.elements())
    values = _values(hypothesis) | {_key(value) for value in map(_value, written) if value is not None}
    scaled = {digits for whole, parts in _scaled(source) if _key(whole) in values for digits in parts}
    bare = {_plain(number) for number in _BARE_DIGITS.findall(source)}
    endings = {digits[2:] for digits in written if len(digits) == 4}
    lost = []
    for number in missing:
        plain = _plain(number)
        if written[plain]:
            written[plain] -= 1
            continue
        value = _value(plain)
        if (
            value is None
            or not (
                _key(value) in values
                or plain in scaled
                or (plain in bare and _as_word(value, hypothesis))
                or _as_article(value, source, hypothesis)
                or _by_the_clock(number, value, values, hypothesis)
                # "90년대" is "the 1990s", and the other way round
                or (plain in endings if len(plain) == 2 else len(plain) == 4 and plain[2:] in written)
            )
        ):
            lost.append(number)
    return lost


def _plain(number: str) -> str:
    """``1,500`` as ``1500`` and ``02`` as ``2``, in ASCII digits."""
    return unicodedata.normalize("NFKC", number).replace(",", "").lstrip("0") or "0"


def _value(plain: str) -> float | None:
    """None for what no one writes in words: a version, a date ("3.11.2"), the digits of a key."""
    try:
        return float(plain) if len(plain) <= 15 else None
    except ValueError:
        return None


def _key(value: float) -> str:
    """Equal for values that are the same number: 4.2 million is not quite 420 times ten thousand in binary."""
    return f"{value:.9g}"


def _scaled(text: str) -> list[tuple[float, list[str]]]:
    """The numbers of ``text`` that a word scales: their value, and the digits that they are written with."""
    found = []
    for match in _KOREAN_NUMBER.finditer(text):
        found.append((_korean_value(match[0]), [_plain(n) for n in _DIGITS.findall(match[0])]))
    for start, end, scale in _ENGLISH_NUMBER.findall(text):
        for digits in (start, end):  # in "4.2 to 3.9 million" the word scales both
            plain = _plain(digits.rstrip(".,"))
            value = _value(plain)
            if digits and value is not None:
                found.append((value * _ENGLISH_SCALE[scale.lower()], [plain]))
    return found


def _korean_value(text: str) -> float:
    """``3억 5천만`` is 350,000,000: tens to thousands multiply inside a group, the group by 만, 억, 조 or 경."""
    total = group = pending = 0.0
    for digits, scales in re.findall(r"(\d[\d,.]*)?\s?([십백천만억조경]*)", text):
        if digits:
            pending = _value(_plain(digits.rstrip(".,"))) or 0.0
        for scale in scales:
            factor = _KOREAN_SCALE[scale]
            if factor < 10**4:
                group += (pending or 1.0) * factor
            else:
                total += ((group + pending) or 1.0) * factor
                group = 0.0
            pending = 0.0
    return total + group + pending


def _values(text: str) -> set[str]:
    values = {_key(value) for value, _ in _scaled(text)}
    for tens, unit, scale in _ENGLISH_SPELLED.findall(text):
        value = _spelled(unit) + (_spelled(tens) if tens else 0)
        values.add(_key(value * _ENGLISH_SCALE.get(scale.lower(), 1)))
    return values


def _spelled(word: str) -> int:
    word = word.lower()
    return _ENGLISH_UNITS.index(word) if word in _ENGLISH_UNITS else 10 * _ENGLISH_TENS.index(word)


def _as_word(value: float, hypothesis: str) -> bool:
    if value == 0.5:
        return _HALF.search(hypothesis) is not None
    if value % 10 == 0 and "decades" in hypothesis:
        return True
    words = (_KOREAN if _has_hangul(hypothesis) else _ENGLISH).get(int(value)) if value == int(value) else None
    return words is not None and words.search(hypothesis) is not None


def _as_article(value: float, source: str, hypothesis: str) -> bool:
    """``1년`` is ``a year``, ``4분의 1`` a quarter, ``1/2`` a half."""
    if value in (1, 2) and "1/2" in source and _HALF.search(hypothesis):
        return True
    return value == 1 and ("분의" in source or bool(_ONE_OF.search(source) and _ARTICLE.search(hypothesis)))


def _has_hangul(text: str) -> bool:
    return any("가" <= letter <= "힣" for letter in text)


def _by_the_clock(number: str, value: float, values: set[str], hypothesis: str) -> bool:
    """``15:00`` is ``3 p.m.`` is ``오후 3시``."""
    if value > 24 or not _CLOCK.search(hypothesis):
        return False
    return number == "00" or _key(value - 12) in values or _key(value + 12) in values
