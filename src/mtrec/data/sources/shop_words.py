"""The vocabulary of the simulated shop: what its goods are called and how they are described.

Within a category the product types are ordered so that each type's natural companion is the next one (the
last one's is the first): a kettle calls for mugs. A type is written `name|other name`. Several words (brush,
bottle, mat, lamp, bag) belong to more than one category on purpose, so that text alone leaves some doubt.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """One category of goods."""

    types: tuple[str, ...]
    """Eight product types, each with its other names."""
    materials: tuple[str, ...]
    uses: tuple[str, ...]
    """Completes "made for …"."""
    hints: tuple[str, ...]
    """Sentences that speak of the category without naming it."""
    tags: tuple[str, ...]
    """Tags that its goods may carry, the common ones first."""
    price: float
    """Median price."""
    age: float
    """Age of the users who like it most."""


SHELVES: dict[str, Shelf] = {
    "Kitchen": Shelf(
        types=(
            "kettle|water boiler", "mug|cup", "teapot|brewing pot", "frying pan|skillet",
            "chef knife|cook's blade",
            "cutting board|chopping block", "storage jar|canister", "bottle|flask",
        ),
        materials=("stainless steel", "cast iron", "ceramic", "borosilicate glass", "beech wood"),
        uses=(
            "slow Sunday breakfasts", "weeknight dinners", "baking with friends", "small stoves",
            "meal prep",
        ),
        hints=(
            "Heats evenly and rinses clean.", "Sits well next to the stove.", "Safe for the dishwasher.",
            "Keeps flavours where they belong.", "Cooks reach for it every day.",
        ),
        tags=("eco-friendly", "durable", "gift", "handmade", "compact", "minimalist"),
        price=32, age=42,
    ),
    "Garden": Shelf(
        types=(
            "trowel|hand spade", "planter|flower pot", "seed kit|grow set", "watering can|sprinkler can",
            "pruning shears|secateurs", "garden glove|thorn glove", "bird feeder|nesting box", "lamp|lantern",
        ),
        materials=("terracotta", "galvanised steel", "ash wood", "recycled plastic", "copper"),
        uses=("balconies", "vegetable beds", "roses and hedges", "the first days of spring", "shady corners"),
        hints=(
            "Made for soil, roots and weather.", "Your herbs will thank you.", "Stays outside all year.",
            "Turns a bare patch green.", "Good for pots and borders.",
        ),
        tags=("outdoor", "eco-friendly", "waterproof", "durable", "organic", "vintage"),
        price=24, age=56,
    ),
    "Audio": Shelf(
        types=(
            "headphones|over-ear phones", "headphone stand|headset hook", "speaker|sound box",
            "turntable|record player",
            "record sleeve set|vinyl sleeves", "microphone|studio mic", "earbuds|in-ear phones",
            "charging case|power case",
        ),
        materials=("brushed aluminium", "walnut veneer", "matte polymer", "memory foam", "woven fabric"),
        uses=("long commutes", "late-night listening", "home recording", "small parties", "podcasts"),
        hints=(
            "Bass stays tight and voices clear.", "Pairs with your phone in seconds.",
            "Up to thirty hours per charge.",
            "Every note in its place.", "Cuts the noise around you.",
        ),
        tags=("wireless", "compact", "professional", "luxury", "travel", "vintage"),
        price=89, age=29,
    ),
    "Sports": Shelf(
        types=(
            "yoga mat|mat", "foam roller|massage roll", "dumbbell|hand weight",
            "resistance band|stretch band",
            "running belt|hip pack", "bottle|drinking bottle", "training towel|gym towel", "duffel bag|bag",
        ),
        materials=("natural rubber", "neoprene", "ripstop nylon", "cork", "microfibre"),
        uses=(
            "morning runs", "home workouts", "stretching after training", "the climbing hall",
            "interval sessions",
        ),
        hints=(
            "Grips even when you sweat.", "Keeps pace with your personal best.",
            "Warm up, cool down, repeat.",
            "Coaches recommend it to beginners.", "Light on the joints.",
        ),
        tags=("lightweight", "durable", "outdoor", "waterproof", "travel", "budget"),
        price=28, age=31,
    ),
    "Toys": Shelf(
        types=(
            "building blocks|stacking bricks", "wooden train|railway set", "puzzle|jigsaw",
            "board game|family game",
            "plush bear|cuddly animal", "doll house|play house", "craft kit|paint set", "kite|flying dragon",
        ),
        materials=("maple wood", "organic cotton", "thick cardboard", "soft felt", "coloured acrylic"),
        uses=("rainy afternoons", "birthdays", "little hands", "the whole family", "playing on the floor"),
        hints=(
            "Hours of make-believe.", "Rounded edges, no small parts.", "Grows with their imagination.",
            "Loved at nursery and at home.", "Easy rules, big laughs.",
        ),
        tags=("kids", "gift", "colourful", "handmade", "eco-friendly", "budget"),
        price=22, age=36,
    ),
    "Books": Shelf(
        types=(
            "crime novel|thriller", "reading lamp|lamp", "cookbook|recipe collection",
            "travel guide|city guide",
            "picture book|bedtime story", "biography|memoir", "poetry volume|collected poems",
            "bookmark set|page markers",
        ),
        materials=("hardback", "paperback", "linen-bound", "large-print", "illustrated"),
        uses=("the bedside table", "long train rides", "curious minds", "quiet evenings", "book clubs"),
        hints=(
            "Hard to put down after the first chapter.", "The author at their best.",
            "Second edition with a new preface.",
            "Reads itself in one sitting.", "Pages you will come back to.",
        ),
        tags=("gift", "budget", "vintage", "kids", "travel", "colourful"),
        price=16, age=48,
    ),
    "Beauty": Shelf(
        types=(
            "face cream|day cream", "serum|elixir", "hair brush|brush", "shampoo bar|solid shampoo",
            "lip balm|lip butter", "hand soap|soap", "perfume|eau de parfum", "bottle|travel dispenser",
        ),
        materials=("shea butter", "aloe vera", "rose oil", "bamboo", "argan oil"),
        uses=("dry skin", "a calm evening routine", "sensitive types", "shiny hair", "the morning mirror"),
        hints=(
            "Absorbs fast and leaves no film.", "Dermatologists tested it.", "A scent that stays discreet.",
            "Feels soft from the first day.", "Free from parabens.",
        ),
        tags=("organic", "gift", "luxury", "travel", "eco-friendly", "handmade"),
        price=27, age=33,
    ),
    "Office": Shelf(
        types=(
            "notebook|journal", "fountain pen|ink pen", "desk lamp|lamp", "monitor stand|screen riser",
            "keyboard|key board", "mouse|pointing device", "document tray|letter tray", "desk mat|mat",
        ),
        materials=("anodised aluminium", "recycled paper", "oak", "vegan leather", "frosted acrylic"),
        uses=("video calls", "tidy desks", "long meetings", "deep work", "the home office"),
        hints=(
            "Clears the clutter in front of you.", "Types without a sound.",
            "Ideas land where you find them again.",
            "Fits the smallest workplace.", "Takes the strain off your neck.",
        ),
        tags=("professional", "minimalist", "compact", "quiet", "wireless", "eco-friendly"),
        price=38, age=38,
    ),
    "Fashion": Shelf(
        types=(
            "linen shirt|shirt", "wool scarf|shawl", "leather belt|belt", "denim jacket|jacket",
            "sneakers|trainers", "socks|ankle socks", "tote bag|bag", "sunglasses|shades",
        ),
        materials=("merino wool", "organic cotton", "full-grain leather", "linen", "corduroy"),
        uses=("casual Fridays", "cool mornings", "city walks", "layering", "summer weddings"),
        hints=(
            "Falls softly and keeps its shape.", "True to size.", "Wear it with jeans or dressed up.",
            "Machine wash at thirty degrees.", "The cut flatters everyone.",
        ),
        tags=("minimalist", "vintage", "luxury", "lightweight", "handmade", "colourful"),
        price=54, age=27,
    ),
    "Furniture": Shelf(
        types=(
            "armchair|lounge chair", "side table|end table", "floor lamp|lamp", "bookcase|shelf unit",
            "bed frame|bedstead", "bedside cabinet|night stand", "folding chair|spare chair",
            "storage bench|chest",
        ),
        materials=("solid oak", "powder-coated steel", "velvet", "rattan", "ash veneer"),
        uses=("small flats", "the reading corner", "guest rooms", "open living rooms", "hallways"),
        hints=(
            "Assembled in twenty minutes.", "Invites you to sit down.",
            "Delivered to your door in two boxes.",
            "Fills the corner that always looked empty.", "Holds more than it seems.",
        ),
        tags=("minimalist", "durable", "foldable", "vintage", "luxury", "compact"),
        price=149, age=45,
    ),
    "Pets": Shelf(
        types=(
            "dog leash|lead", "dog harness|walking harness", "food bowl|feeding bowl",
            "cat tree|scratching post",
            "chew toy|tug rope", "grooming brush|brush", "pet bed|sleeping mat", "carrier bag|bag",
        ),
        materials=("waxed canvas", "sisal", "natural rubber", "washable fleece", "stainless steel"),
        uses=("muddy walks", "lazy cats", "puppies", "the drive to the vet", "shedding season"),
        hints=(
            "Tails will wag.", "Chewed, scratched and still in one piece.", "Comes with a matching tag.",
            "Gentle on paws and fur.", "Your four-legged friend decides.",
        ),
        tags=("durable", "waterproof", "outdoor", "colourful", "organic", "foldable"),
        price=29, age=40,
    ),
    "Travel": Shelf(
        types=(
            "cabin trolley|carry-on", "packing cubes|luggage organisers", "backpack|rucksack",
            "rain cover|bag cover",
            "neck pillow|travel pillow", "sleep mask|eye mask", "toiletry bag|bag", "luggage tag|name tag",
        ),
        materials=("polycarbonate", "waxed cotton", "ripstop nylon", "memory foam", "recycled polyester"),
        uses=("weekend trips", "overnight flights", "hostels", "business days away", "the overhead locker"),
        hints=(
            "Within the size limits of most airlines.", "Rolls over cobblestones.",
            "A pocket for your passport.",
            "Opens flat at security.", "Ready when the gate is called.",
        ),
        tags=("travel", "lightweight", "waterproof", "foldable", "compact", "professional"),
        price=58, age=34,
    ),
}  # fmt: skip

TAGS: dict[str, tuple[str, ...]] = {
    "eco-friendly": ("eco-friendly", "kind to the planet", "made with renewable energy", "low in waste"),
    "durable": ("durable", "built to outlast you", "hard to break", "made for years of use"),
    "gift": ("a fine gift", "easy to wrap", "a present that lands", "comes in a ribboned box"),
    "handmade": ("handmade", "made one by one", "shaped by craftspeople", "no two are alike"),
    "compact": ("compact", "takes little room", "small enough for a drawer", "space-saving"),
    "minimalist": ("minimalist", "stripped to the essentials", "clean lines and nothing else", "without ornament"),
    "outdoor": ("for the outdoors", "at home in the open air", "ready for wind and sun", "trail-tested"),
    "waterproof": ("waterproof", "shrugs off a downpour", "sealed against rain", "keeps water out"),
    "organic": ("organic", "grown without pesticides", "certified natural", "from controlled farming"),
    "vintage": ("vintage", "with the charm of the fifties", "a retro piece", "looks like an heirloom"),
    "wireless": ("wireless", "no cables", "connects over Bluetooth", "cord-free"),
    "professional": ("for professionals", "studio grade", "trusted by experts", "what the trade uses"),
    "luxury": ("luxurious", "an indulgence", "opulent in every detail", "for special occasions"),
    "travel": ("good for travelling", "slips into hand luggage", "made for the road", "a companion on trips"),
    "lightweight": ("lightweight", "barely noticeable to carry", "feather-light", "weighs next to nothing"),
    "budget": ("easy on the budget", "more for less money", "an honest bargain", "costs little"),
    "kids": ("for kids", "safe in small hands", "children adore it", "from three years up"),
    "colourful": ("colourful", "in bright shades", "a splash of rainbow", "comes in many hues"),
    "quiet": ("quiet", "hardly makes a sound", "silent in use", "will not wake anyone"),
    "foldable": ("foldable", "folds flat", "collapses in one move", "tucks away when not needed"),
}

STYLES: dict[str, tuple[str, ...]] = {
    "modern": ("sleek", "contemporary", "Nordic", "urban"),
    "classic": ("timeless", "traditional", "elegant", "heritage"),
    "playful": ("cheerful", "quirky", "whimsical", "fun"),
    "rustic": ("rustic", "farmhouse", "weathered", "earthy"),
}

QUALITY: tuple[tuple[str, ...], ...] = (
    (
        "A simple model at entry level.", "Thin walls, plain finish.", "Does the basics.",
        "Basic fittings, no frills.",
    ),
    ("Decent workmanship.", "Solid everyday choice.", "Reliable and well finished.", "Sensibly made."),
    (
        "Superb workmanship down to the last seam.", "Finished by hand to tight tolerances.",
        "Our buyers' favourite for its flawless finish.", "Outstanding materials, ten-year guarantee.",
    ),
)  # fmt: skip

FILLERS: tuple[str, ...] = (
    "Ships within two days.", "Comes in recyclable packaging.", "Available while stocks last.",
    "Instructions in six languages.", "Returns are free for thirty days.", "New in our range this season.",
)  # fmt: skip

BRANDS: tuple[str, ...] = (
    "Alderway", "Birkholm", "Brightloom", "Calder & Finch", "Casa Lumo", "Cedarline", "Corvane", "Dapplewood",
    "Dunmere", "Elmhurst", "Everfold", "Fennick", "Fieldhaus", "Fjordal", "Glimmer Co", "Greyhollow",
    "Hartwell", "Hestia", "Ironvale", "Juniper & Co", "Kestrel", "Kindling", "Larkspur", "Lindqvist",
    "Lumora", "Maplehurst", "Marrow", "Mistral", "Nordhaven", "Northbeam", "Oakline", "Ostara",
    "Pemberly", "Pinecrest", "Quillon", "Ravenna", "Redfern", "Sablewood", "Saltmarsh", "Solvane",
    "Stellin", "Tallow", "Thistle", "Umbra Works", "Vantico", "Westerly", "Willowmade", "Zephyrine",
)  # fmt: skip

REGIONS: dict[str, float] = {
    "North": 0.14, "South": 0.2, "East": 0.16, "West": 0.18, "Capital": 0.24, "Islands": 0.08
}  # fmt: skip

GENDERS: dict[str, float] = {"female": 0.49, "male": 0.47, "other": 0.04}
