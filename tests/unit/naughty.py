"""Names people type, and strings that have broken programs, after the categories of the Big List of Naughty Strings.

Every string is written with escapes where an editor would not show it as it is.
"""

from __future__ import annotations

from typing import Final

# ── names in many scripts, as people type them; each is kept ──
TYPED_NAMES: Final = (
    "my-notebook",
    "Übung 1",
    "Fußgängerübergänge",
    "Ελληνικά τετράδιο",
    "ᾂ polytonic ὕβρις",
    "Блокнот № 1",
    "ѥ҃ Slavonic",
    "Տետր",
    "რვეული",
    "ᲐᲑᲒ",
    "دفتر ملاحظاتي",
    "مُذَكِّرَة",  # with vowel signs
    "دفتر ۱۲۳",
    "می\u200cخواهم",  # Persian joins with U+200C
    "PDF\u200cها",
    "نوٹ بک",
    "מחברת שלי",
    "שָׁלוֹם",
    "ܟܬܒܐ",
    "މޮޅު",
    "मेरी नोटबुक",
    "क्ष \u0915\u094d\u200d\u0937",  # the same letters, kept apart by U+200D
    "আমার খাতা",
    "ਮੇਰੀ ਕਾਪੀ",
    "મારી નોટબુક",
    "எனது குறிப்பேடு",
    "నా నోట్బుక్",
    "ನನ್ನ ನೋಟ್ಬುಕ್",
    "എന്റെ അവന്\u200d",  # Malayalam words may end with U+200D
    "ශ්\u200dරී ලංකාව",
    "สมุดบันทึกของฉัน",
    "ปั่นข้ามน้ำ",
    "ປຶ້ມບັນທຶກ",
    "བོད་ཡིག རྒྱུ",
    "ကျွန်ုပ်၏ မှတ်စု",
    "កំណត់ចំណាំ",
    "ᠮᠣᠩᠭᠣᠯ",
    "ノートブック",
    "ﾊﾝｶｸ ｶﾅ",
    "我的笔记本",
    "我的筆記本 𠮷野家",
    "葛\U000e0100城",  # an ideograph with its variation selector
    "\U00031350",  # an ideograph that Unicode has known since 2022
    "내 노트북",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",  # 한글, letter by letter
    "የእኔ ማስታወሻ",
    "ᏣᎳᎩ",
    "ᐃᓄᒃᑎᑐᑦ",
    "ꦗꦮ",
    "ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "ߒߞߏ",
    "𞤀𞤣𞤤𞤢𞤥",
    "𓀀𓂀",
    "Sổ tay của tôi",
    "e\u0301tude d\u2019e\u0301te\u0301",
    "İstanbul ığüşöç",
    "Ąžuolų knyga",
    "ŋ ɲ ʃ IPA",
    "∑(xᵢ−μ)² ≤ ½",
    "100 % €5 #2 @home",
    "☃ ♥ ♪",
    "👩\u200d💻",
    "👨🏽\u200d🔬 lab",
    "👨\u200d👩\u200d👧\u200d👦",
    "❤\ufe0f\u200d🔥",
    "🏳\ufe0f\u200d🌈 🏴\u200d☠\ufe0f",
    "1\ufe0f\u20e3",
    "🇺🇳",
    "\U0001fa77",  # pink heart, in Unicode since 2022
    "\U0001fae8",
)

# ── naughty, and yet something a person could type: only a name, escaped wherever it is shown ──
ACCEPTED_NAMES: Final = (
    # reserved words
    "undefined", "null", "None", "NaN", "true", "nil", "constructor", "__proto__", "hasOwnProperty", "CON", "NUL",
    "LPT1", "Infinity",
    # numbers
    "0", "-1", "1/0", "1E+02", "0x0", "٠١٢٣", "1,000.00", "½", "²", "9" * 63,
    # special characters
    ",./;'[]\\-=", "<>?:\"{}|_+", "!@#$%^&*()`~", "…«»–—“”", "Ω≈ç√∫˜µ≤≥÷",
    # SQL and NoSQL
    "1; DROP TABLE users", "' OR 1=1 -- 1", "'; EXEC xp_cmdshell('dir'); --", '{"$gt": ""}', "session#0", "%27",
    # HTML, script
    "<script>alert(1)</script>", "\"><script>alert(1)</script>", "' onfocus=alert(1) autofocus",
    "<svg/onload=alert(1)>",
    "javascript:alert(1)", "<img src=x onerror=alert(1)>", "</title><b>", "--><!-- --", "&lt;b&gt;&amp;&#39;", "]]>",
    "<style>*{display:none}</style>", "<bdo dir=rtl>", "＜script＞", "ʼ><u>",
    # templates and format strings
    "{{ 7*7 }}", "{% include 'x' %}", "${7*7}", "#{7*7}", "%s%n%x%p", "{0.__class__}", "%(name)s", "<%= 1 %>",
    # commands, shells, Ruby, environment
    "$(touch /tmp/x)", "`id`", "; rm -rf /", "| cat /etc/passwd", "$HOME", "%COMSPEC%", "System('ls')", "-rf",
    "--privileged", "@file",
    "() { :; }; echo x",
    # paths
    "../../../../etc/passwd", "..\\..\\windows", "/dev/null", "C:\\nul", "file:///etc/passwd", ".", "..", "~",
    "a%2f..%2fb", "%2e%2e%2f",
    # headers, terminals spelled out
    "\\r\\nSet-Cookie: a=b", "%0d%0aSet-Cookie:%20a=b", "\\x1b[31m", "\\u202e", "^[[2J",
    # XML entities, server-side includes, LDAP, CSV
    "<!ENTITY x SYSTEM 'file:///x'>", "<!--#exec cmd='ls'-->", "*)(uid=*))(|(uid=*", "=cmd|' /C calc'!A0", "=1+1",
    # two-byte characters, upside-down, superscripts, full-width, mathematical
    "田中さんにあげて下さい", "ΑΒΓ ＡＢＣ", "˙ɐnbᴉlɐ ɐuƃɐɯ", "⁰⁴⁵₀₁₂", "𝕿𝖍𝖊 𝖖𝖚𝖎𝖈𝖐", "(｡◕ ∀ ◕｡)", "( ͡° ͜ʖ ͡°)",
    "¯\\_(ツ)_/¯",
    # words that look like others', marks upon marks
    "аdmin", "Ｈomeport", "ﷺ", "ﬁ", "Z\u0351\u036b\u0343a\u0323\u0332l\u0348g\u032fo\u0321",
    # words that filters have refused: Scunthorpe
    "Scunthorpe General Hospital", "Lightwater Country Park",
    "\ufffd",
)  # fmt: skip

# ── nothing a person types: control, invisible or reordering characters, blanks of other kinds, nothing to see ──
REFUSED_NAMES: Final = (
    *(f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0))),
    # bidi controls
    *(f"a{mark}b" for mark in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
    "\u202e" + "gnp.exe",
    "שלום\u202eabc",
    "\u2066\u2067 test",
    *(f"a{mark}b" for mark in "\u00ad\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u206a\u206f\ufeff\ufff9\ufffa\ufffb"),
    *(f"a{mark}b" for mark in "\u2028\u2029"),
    *(f"a{space}b" for space in "\u00a0\u1680\u2000\u2003\u2007\u2009\u200a\u202f\u205f\u3000"),
    "\u00a0", "\u3000", "\u2003\u2003",
    *(f"a{filler}" for filler in "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"),
    "\u3164", "\u2800", "\u115f\u1160", "\uffa0 \uffa0",
    # joiners that join nothing
    "\u200d", "\u200c\u200d", "a\u200db", "note\u200c", "\u200dnote", "क\u200d\u200dष", "a \u200d b",
    "\u0301", "\u0301\u0316\u0489", "\ufe0f", "\U000e0100",  # marks alone
    "a\U000e0041\U000e0042",  # text in tags
    "\U0001d173a",
    "\ue000", "\uf8ff", "\U000f0000", "\U0010fffd",  # private use
    "\ud800", "\udfff", "a\ud83d",  # half a character
    # no characters at all
    "\ufdd0", "\ufffe", "\uffff", "\U0001ffff", "\U0002ffff", "\U0010ffff", "\U000e0fff", "\u0378",
    "x" * 64, "字" * 64, "Z" + "\u0300" * 70, "👨\u200d👩\u200d👧\u200d👦" * 10,
    "a\r\nb", "a\r\nSet-Cookie: x=y", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x00", "a\x00.ipynb",
    "\x08\x08\x08",
)  # fmt: skip
