"""Opposites: pairs of rows that differ in one word, number, unit or sign, and say different things.

It makes them from lists of real words in eight languages, by a seed. It does not know how twins are found.
"""

import random
from collections.abc import Iterator

Row = tuple[str, str]

# minimal pairs first: words of which many differ in one letter
WORDS = {
    "en": [
        "ethane ethene ethyne methane methene propane propene butane butene pentane pentene ethanol ethanal methanol",
        "nitrate nitrite sulfate sulfite sulfide phosphate phosphite chlorate chlorite chloride fluorine fluoride",
        "Iran Iraq Niger Nigeria Austria Australia Slovakia Slovenia Mali Malta Oman Jordan Gambia Zambia",
        "hotel hostel country county desert dessert trial trail diary dairy angel angle stable sable public pubic",
        "Smith Smyth Johnson Jonson Thomson Thompson Brian Bryan Springdale Springvale Hanover Hannover Bern Born",
        "cat cats house houses mouse man men woman women legal illegal typical atypical moral amoral",
        "alpha beta gamma delta cis trans ortho meta para systemd system sshd docker dockerd MySQL SQLite Kafka Kaffe",
        "glucose galactose lactose lactase maltose mannose ileum ilium ureter urethra artery arteries",
    ],
    "pt": [
        "avó avô país pais caro carro casa caça peso preso legal ilegal moral amoral gato gata menino menina",
        "Lisboa Lagos Leiria Porto Braga Bragança Faro Fafe Brasil Belém Belmonte Santarém Setúbal",
        "etano eteno nitrato nitrito sulfato sulfito janeiro fevereiro março maio junho julho",
    ],
    "de": [
        "Staat Stadt fordern fördern Hüte Hütte Ofen offen Rate Ratte Beet Bett Masse Maße Buße Busse Kiel Kiew",
        "legal illegal typisch atypisch Ethan Ethen Nitrat Nitrit Sulfat Sulfit Mutter Mütter Vater Väter Wagen Wägen",
        "Bonn Bern Essen Hessen Passau Dessau Nassau Hagen Siegen Singen Juni Juli heute mittags nachts",
    ],
    "zh": ["杭州 苏州 徐州 扬州 常州 泰州 温州 台州 广州 郑州 福州 兰州 乙烷 乙烯 丙烷 丙烯 六点 七点 八点 九点"],
    "ja": ["東京店 京都店 大阪店 福岡店 長崎店 宮崎店 エタン エテン プロパン プロペン 六時 七時 八時 九時 犬 猫"],
    "th": ["กรุงเทพ เชียงใหม่ เชียงราย ภูเก็ต ขอนแก่น ลำปาง ลำพูน ใกล้ ไกล เสือ เสื้อ ข้าว ขาว"],
    "ko": ["강남지점 강북지점 강서지점 강동지점 성남지점 전주지점 청주지점 충주지점 진주지점 경주지점 에탄 에텐"],
    "ar": ["العراق إيران عمان عمّان الكويت الجزائر المغرب تونس لبنان سوريا كلب قلب نترات نتريت"],
}
FRAMES: dict[str, list[Row]] = {
    "en": [
        (
            "Where in the brochure can I read about {} this year?",
            "You will find it on the second page of the brochure.",
        ),
        ("Is {} mentioned in the rules of the house?", "Yes, it is."),
        ("what do you know about {} in general", "It is described at length in the book on the shelf by the door."),
        ("Tell me what {} stands for, please.", "Our teacher speaks about {} in the third lesson."),
    ],
    "pt": [
        ("Onde posso ler sobre {} neste ano?", "Na segunda página do livro que está na mesa."),
        ("Você sabe o que significa {} nesta frase?", "Sim, sabemos."),
    ],
    "de": [
        (
            "Wo kann ich in diesem Jahr etwas über {} lesen?",
            "Auf der zweiten Seite des Buches, das auf dem Tisch liegt.",
        ),
        ("Steht {} in der Liste der Begriffe?", "Ja."),
    ],
    "zh": [
        ("{}的情况在这本书里有没有详细的说明？", "有，请看第二页，那里写得很清楚。"),
        ("请问{}在哪里？", "在那边。"),
    ],
    "ja": [
        ("{}についてこの本に詳しい説明がありますか？", "はい、二ページに書いてあります。"),
        ("{}はどこですか？", "あちらです。"),
    ],
    "th": [("ในหนังสือเล่มนี้มีข้อมูลเกี่ยวกับ{}หรือไม่", "มี กรุณาดูที่หน้าสอง"), ("{}อยู่ที่ไหน", "อยู่ทางนั้น")],
    "ko": [
        ("{} 영업시간은 몇 시부터 몇 시까지인가요?", "매일 아침 아홉 시부터 저녁 여덟 시까지 영업합니다."),
        ("{} 어디에 있나요?", "저쪽입니다."),
    ],
    "ar": [("أين يمكنني أن أقرأ عن {} في هذا الكتاب؟", "في الصفحة الثانية من الكتاب."), ("هل تعرف {} جيدا؟", "نعم.")],
}
NEGATED = {
    "en": [
        ("May I return the shoes after a week?", "May I not return the shoes after a week?"),
        ("Can the goalkeeper leave the area?", "Can't the goalkeeper leave the area?"),
        ("Is it ever closed on a Sunday in winter?", "Is it never closed on a Sunday in winter?"),
        ("Is there a room with a balcony?", "Is there no room with a balcony?"),
        ("Is a ticket valid with a stamp?", "Is a ticket valid without a stamp?"),
    ],
    "pt": [
        ("Posso devolver os sapatos depois?", "Não posso devolver os sapatos depois?"),
        ("O café é servido com açúcar?", "O café é servido sem açúcar?"),
    ],
    "de": [
        ("Darf ich die Schuhe umtauschen?", "Darf ich die Schuhe nicht umtauschen?"),
        ("Gibt es ein Zimmer mit Bad?", "Gibt es kein Zimmer mit Bad?"),
        ("Kann man mit Gepäck reisen?", "Kann man ohne Gepäck reisen?"),
    ],
    "zh": [("这双鞋可以退货吗？", "这双鞋不可以退货吗？"), ("他们昨天来了吗？", "他们昨天没来吗？")],
    "ja": [("これは返品できます。", "これは返品できません。"), ("これは本ではある。", "これは本ではない。")],
    "th": [("คืนสินค้าได้ใช่ไหม", "คืนสินค้าไม่ได้ใช่ไหม")],
    "ko": [("신발을 반품해도 되나요?", "신발을 반품하면 안 되나요?"), ("방이 있나요?", "방이 없나요?")],
    "ar": [("هل يمكن إرجاع الحذاء؟", "هل لا يمكن إرجاع الحذاء؟"), ("هذا كتاب جديد", "ليس هذا كتاب جديد")],
}
SIGNS = [
    *(
        ("What is {}?", one, other)
        for one, other in [("x²", "x2"), ("½", "1/2"), ("5!", "5"), ("[]", "{}"), ("()", "[]")]
    ),
    *(("What does {} do in the code?", one, other) for one, other in [("!=", "="), ("a->b", "a.b"), ("a//b", "a/b")]),
    *(("What does {} do in the code?", one, other) for one, other in [("-v", "-V"), ("x[0]", "x{0}"), ("i++", "i--")]),
    *(("Is {} a language of programs?", one, other) for one, other in [("C", "C++"), ("C#", "C"), ("F#", "F")]),
    *(("Is {} still taught?", one, other) for one, other in [("Python 2", "Python 3"), ("HTTP/1", "HTTP/2")]),
    *(
        ("Is {} too much for a cable?", one, other)
        for one, other in [("5 mW", "5 MW"), ("5 mg", "5 Mg"), ("5 V", "5 A")]
    ),
    *(("Is {} the value?", one, other) for one, other in [("-5", "5"), ("1.5", "15"), ("1.5", "1-5"), ("5-4", "54")]),
    *(("Is {} the value?", one, other) for one, other in [("3 m", "3 M"), ("$5", "€5"), ("5 %", "5 ‰"), ("<5", ">5")]),
    *(
        ("Is {} the value?", one, other)
        for one, other in [("2.0", "2.1"), ("10:30", "10.30"), ("D-glucose", "L-glucose")]
    ),
    *(
        ("Is {} the right form?", one, other)
        for one, other in [("α-form", "β-form"), ("R-form", "S-form"), ("N·m", "N/m")]
    ),
    ("Does {} win?", "Anna beat Ben", "Ben beat Anna"),
    ("How do I get {} by train?", "from Rome to Paris", "from Paris to Rome"),
    ("Is {} less than nothing?", "5 minus 3", "3 minus 5"),
    ("Is this {} day in winter?", "a typical", "atypical"),
]


def opposites(seed: int, count: int) -> Iterator[tuple[Row, Row, list[Row]]]:
    """Two rows that both have to stay, and the other rows of their data."""
    chance = random.Random(seed)
    for number in range(count):
        language = list(WORDS)[number % len(WORDS)]
        kind = chance.choice(["word", "word", "word", "number", "negation", "sign"])
        if kind == "word":
            yield _of_words(language, chance)
        elif kind == "number":
            yield _of_numbers(language, chance)
        elif kind == "negation":
            one, other = chance.choice(NEGATED[language])
            yield (one, FRAMES[language][0][1]), (other, FRAMES[language][0][1]), []
        else:
            frame, one, other = chance.choice(SIGNS)
            yield (frame.format(one), "Yes, it is."), (frame.format(other), "Yes, it is."), []


def _of_words(language: str, chance: random.Random) -> tuple[Row, Row, list[Row]]:
    """One word exchanged; in the other rows stand both words, or one of them, or none."""
    words = chance.choice(WORDS[language]).split()
    place = chance.randrange(len(words) - 1)
    one, other = words[place], words[place + 1 if chance.random() < 0.7 else chance.randrange(place + 1, len(words))]
    if chance.random() < 0.5:
        one, other = other, one
    frame, answer = chance.choice(FRAMES[language])
    rows = [(frame.format(word), answer.format(one)) for word in (one, other)]
    known = chance.choice([[], [one], [other], [one, other]])
    others = [
        (f"{prefix} {word} {number}", f"{word} {number}.") for prefix in "ABC" for number in range(7) for word in known
    ]
    return rows[0], rows[1], others


def _of_numbers(language: str, chance: random.Random) -> tuple[Row, Row, list[Row]]:
    """A number, a date, an hour or a unit exchanged."""
    frame, answer = chance.choice(FRAMES[language])
    number = chance.randrange(2, 3000)
    one, other = chance.choice(
        [
            (str(number), str(number + 1)),
            (f"{number}.5", f"{number}5"),
            (f"{number} kg", f"{number} g"),
            (f"{number} km", f"{number} cm"),
            (f"{number} €", f"{number} $"),
            (f"{number % 24}:30", f"{number % 24}:20"),
            (f"{number}-05-01", f"{number}-06-01"),
            (f"-{number}", str(number)),
        ]
    )
    return (frame.format(one), answer.format("")), (frame.format(other), answer.format("")), []
