"""The words and facts of nano's world."""


def _listed(words: str) -> list[str]:
    return words.split()


SMALL_NUMBERS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")

# What the phrases to repeat are made of.
WORDS = _listed(
    """
    adventure after airport alone always angry answer ant apple arrow autumn baker ball banana basket bedroom
    bee before begin behind bell between bicycle big black blanket blue boat bottle branch brave bread break
    breakfast bridge bright bring brother brown bucket build butter butterfly button camera candle card carpet
    carrot carry castle cat catch chair cheese cherry chicken children city clean clever climb clock close cloud
    coat coffee cold compass computer cook cool copper corn corner country cousin cow crown dance dancer danger
    dark deep desert diamond dinner doctor dog dolphin door dragon dream dress drink drive drop drum duck eagle
    early earth east eat elephant empty engine evening family farmer fast father find finish fire flag floor
    flower fly follow forest fresh friend frog full game garden gentle giant gift give glass glove goat gold
    goose grape grass gray green guitar hammer happy harbor hard hat hear heavy help hold hope horse hot hotel
    hour inside iron island jacket january journey july jump king kitchen kite ladder lamp late laugh lead leaf
    left lemon letter light lion listen little long lose loud luck lunch make map market maybe metal milk minute
    mirror monday money monkey moon morning mother mountain mouse music narrow needle neighbor never new night
    north number ocean often old onion open orange outside over paint painter paper parrot party peace peach
    pearl pencil people pepper person phone piano picture pig pigeon pillow pilot pink plane planet play pocket
    potato price prince princess promise pull purple push puzzle queen question quiet rabbit rain rainbow read
    red ribbon rice ride right river road robot roof root rope rose run sad sailor salt sandwich scarf school
    second secret seed shadow sheep shield shirt shoes short silver simple sing singer sister sleep slow small
    smell smile snake snow soft soldier song soup south speak spider spring star start station stone stop storm
    story street strong student sugar summer sun sunday swim sword table take tall tea teacher throw thunder
    ticket tiger today together tomato tomorrow touch train travel treasure tree trumpet truth tulip turn turtle
    uncle under valley village violin wagon wait wake walk wall warm wash watch water weak west whale whistle
    white wide wind window winter wizard wood write writer yellow yesterday young
    """
)

NAMES = _listed(
    "Anna Ben Carl Diana Emma Frank Grace Henry Ivan Julia Kevin Laura "
    "Maria Nathan Oliver Paul Rachel Sarah Thomas Victor Peter Lucy Martin Alice"
)
DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _listed("January February March April May June July August September October November December")

COLOUR_OF_THING = {
    "the sky": "blue",
    "the grass": "green",
    "snow": "white",
    "coal": "black",
    "a banana": "yellow",
    "a strawberry": "red",
    "the sun": "yellow",
    "a carrot": "orange",
    "chocolate": "brown",
    "an elephant": "gray",
    "a lemon": "yellow",
    "blood": "red",
}

SOUND_OF_ANIMAL = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "sheep": "baa",
    "pig": "oink",
    "lion": "roar",
    "bee": "buzz",
    "mouse": "squeak",
    "snake": "hiss",
}

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "left": "right",
    "day": "night",
    "fast": "slow",
    "open": "closed",
    "happy": "sad",
    "tall": "short",
    "light": "dark",
    "old": "new",
    "full": "empty",
    "hard": "soft",
    "wet": "dry",
    "early": "late",
    "loud": "quiet",
    "black": "white",
    "near": "far",
    "rich": "poor",
    "strong": "weak",
}

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "England": "London",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Cuba": "Havana",
    "Canada": "Ottawa",
    "Ireland": "Dublin",
}

LEGS = {
    "dog": 4,
    "cat": 4,
    "spider": 8,
    "bird": 2,
    "horse": 4,
    "ant": 6,
    "bee": 6,
    "snake": 0,
    "chicken": 2,
    "cow": 4,
}

# How many ... -> the whole answer
HOW_MANY = {
    "days are in a week": "There are seven days in a week.",
    "months are in a year": "There are twelve months in a year.",
    "hours are in a day": "There are twenty four hours in a day.",
    "minutes are in an hour": "There are sixty minutes in an hour.",
    "seconds are in a minute": "There are sixty seconds in a minute.",
    "wheels does a car have": "A car has four wheels.",
    "wheels does a bicycle have": "A bicycle has two wheels.",
    "fingers are on one hand": "There are five fingers on one hand.",
    "sides does a triangle have": "A triangle has three sides.",
    "sides does a square have": "A square has four sides.",
    "planets are in the solar system": "There are eight planets in the solar system.",
    "letters are in the alphabet": "There are twenty six letters in the alphabet.",
}

# Answer -> the ways to ask for it.
CHAT = {
    "Hello! How can I help you?": ["hello", "hello there", "hi", "hi there", "hey", "good day"],
    "Good morning! How can I help you?": ["good morning"],
    "Good evening! How can I help you?": ["good evening"],
    "I am fine, thank you.": ["how are you", "how are you today", "how do you do"],
    "I am Antiphon nano, a small voice model.": [
        "who are you",
        "what are you",
        "tell me who you are",
        "introduce yourself",
    ],
    "My name is Antiphon nano.": ["what is your name", "what's your name", "tell me your name"],
    "I can answer small questions, look at shapes, and listen to sounds.": [
        "what can you do",
        "how can you help me",
        "what do you know",
    ],
    "You are welcome.": ["thank you", "thanks", "thank you very much", "thanks a lot"],
    "Goodbye! See you soon.": ["goodbye", "bye", "bye bye", "see you later", "good night"],
    "Why did the robot go to school? To be a little brighter.": [
        "tell me a joke",
        "do you know a joke",
        "say something funny",
    ],
    "Yes, I can hear you.": ["can you hear me", "are you there", "do you hear me"],
    "Yes, I can speak in three voices.": ["can you speak", "can you talk"],
    "No, I am a small voice model.": ["are you a human", "are you a person", "are you a robot"],
    "La la la, that is my song.": ["sing a song", "can you sing", "sing something"],
    "I do not have a clock.": ["what time is it", "what is the time"],
    "I am very young.": ["how old are you", "when were you born"],
    "I live in a computer.": ["where do you live", "where are you"],
    "Thank you, that is kind.": ["i love you", "i like you"],
    "Yes, what can I do for you?": ["help", "help me", "can you help me"],
}

UNKNOWN = [
    "what is the meaning of life",
    "who won the football game",
    "what is the weather today",
    "how do i cook rice",
    "who is the president",
    "write a poem about the sea",
    "what is the best movie",
    "translate this into french",
    "how far is the moon",
    "why is the sky blue",
    "what should i eat for dinner",
    "play some music",
    "set a timer for ten minutes",
    "how do airplanes fly",
    "what is quantum physics",
    "who wrote this book",
    "book a flight to london",
    "what is the price of gold",
    "how deep is the ocean",
    "tell me a story",
    "call my mother",
    "turn on the lamp",
    "what happened in history",
    "how do i learn to dance",
    "where can i buy a guitar",
    "what is love",
    "open the door",
    "is there life on mars",
    "who painted this picture",
    "what is the news today",
]
UNKNOWN_ANSWER = "Sorry, I do not know that."
