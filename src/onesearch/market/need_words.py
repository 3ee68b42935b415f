"""Hand-written words of needs: what shoppers say when they do not name a product. None of them appears in a title.

A *topic* word (activity, occasion, place) stands for a set of product types; a *trait* word (problem, climate,
recipient) stands for a set of attribute values, drawn around a theme. ``THEMES`` says which values belong to a theme;
the stems below make further plausible words when the market needs more of them than are written here.
"""

from typing import Final

# theme: attribute values that serve it (any department)
THEMES: Final[dict[str, str]] = {
    "wet": "waterproof, quick-dry, leakproof, weatherproof, rustproof, rubber, nylon, vinyl, silicone",
    "cold": "thermal, insulated, windproof, wool, fleece, down, cashmere, double-layer, winter",
    "hot": "cooling, breathable, moisture-wicking, mesh, linen, bamboo fiber, sun-protection, summer, aloe vera",
    "cramped": "space-saving, foldable, compact, stackable, slim, mini, modular, extendable",
    "moving": "portable, lightweight, travel-size, cordless, wireless, rechargeable, detachable, foldable, nylon",
    "rough": "heavy-duty, reinforced, shock-absorbing, shatterproof, durable, tactical, stainless steel, titanium, "
    "canvas",
    "noise": "silent, noise-cancelling, padded, memory foam, soft, blackout, velvet, rubber",
    "sensitive": "hypoallergenic, fragrance-free, soothing, cotton, natural, bamboo, silicone, seamless, aloe vera",
    "dirt": "stain-resistant, self-cleaning, antibacterial, odor-control, dustproof, dishwasher-safe, non-stick, "
    "polyester",
    "dark": "reflective, backlit, glow-in-the-dark, dimmable, brightening, white, yellow, rechargeable",
    "ache": "ergonomic, supportive, orthopedic, massage, padded, adjustable, memory foam, curved, anti-slip",
    "refined": "elegant, luxury, silk, cashmere, gold, marble, premium, art deco, french, italian, velvet",
    "nostalgic": "vintage, retro, classic, handmade, brass, walnut, leather, copper, denim, english",
    "playful": "cartoon, sensory, educational, glow-in-the-dark, pink, yellow, magnetic, futuristic, tie dye",
    "frugal": "cheap, refillable, energy-saving, plastic, multi-purpose, polyester, long-lasting, rechargeable",
    "green": "biodegradable, natural, bamboo, jute, linen, energy-saving, refillable, bamboo fiber, oak",
    "busy": "automatic, non-stick, wrinkle-free, fast-charging, quick-dry, self-cleaning, magnetic, multi-purpose",
    "bright-sun": "uv-resistant, sun-protection, weatherproof, wide, coastal, summer, white, teal",
    "calm": "minimalist, nordic, japanese, beige, linen, natural, matte, soft, danish, ceramic",
    "bold": "gothic, streetwear, red, leopard, oversized, animal print, futuristic, black, glossy",
    "country": "rustic, farmhouse, cottage, plaid, pine, canvas, cast iron, floral, jute, english",
    "fire": "heat-resistant, fireproof, cast iron, ceramic, silicone, stainless steel, carbon fiber, copper",
    "worn": "repairing, hydrating, reinforced, argan oil, shea butter, collagen, durable, long-lasting, galvanized "
    "steel",
    "small-hands": "child-safe, chew-proof, shatterproof, lightweight, soft, adjustable, cotton, kids, mini",
}

# trait word: theme. Problems, climates and recipients; other traits are made from the stems below.
TRAITS: Final[dict[str, str]] = {
    "monsoon": "wet", "drizzle": "wet", "typhoon": "wet", "puddles": "wet", "spills": "wet", "splashing": "wet",
    "frostbite": "cold", "blizzard": "cold", "shivering": "cold", "tundra": "cold", "draughts": "cold", "icy": "cold",
    "heatwave": "hot", "sweating": "hot", "tropics": "hot", "humid": "hot", "sahara": "hot", "feverish": "hot",
    "dormitory": "cramped", "caravan": "cramped", "bedsit": "cramped", "clutter": "cramped", "houseboat": "cramped",
    "nomads": "moving", "hitchhiker": "moving", "layovers": "moving", "vagabond": "moving", "flyers": "moving",
    "clumsy": "rough", "potholes": "rough", "tumbles": "rough", "firefighter": "rough", "mechanic": "rough",
    "snoring": "noise", "insomnia": "noise", "noisy": "noise", "migraine": "noise", "eavesdropping": "noise",
    "eczema": "sensitive", "asthma": "sensitive", "rashes": "sensitive", "itchy": "sensitive", "allergies": "sensitive",
    "mould": "dirt", "shedding": "dirt", "muddy": "dirt", "germs": "dirt", "stench": "dirt", "sticky": "dirt",
    "nightfall": "dark", "gloomy": "dark", "blackouts": "dark", "foggy": "dark", "nightshift": "dark", "dusk": "dark",
    "sciatica": "ache", "arthritis": "ache", "slouching": "ache", "stiffness": "ache", "granny": "ache", "cashier":
    "ache",
    "boss": "refined", "fiancee": "refined", "hostess": "refined", "diplomat": "refined", "duchess": "refined",
    "grandpa": "nostalgic", "historian": "nostalgic", "antiquarian": "nostalgic", "widower": "nostalgic",
    "nephew": "playful", "goddaughter": "playful", "preschooler": "playful", "gamer": "playful", "niece": "playful",
    "broke": "frugal", "undergraduate": "frugal", "intern": "frugal", "thrifty": "frugal", "freelancer": "frugal",
    "vegan": "green", "ecologist": "green", "landfill": "green", "zerowaste": "green", "activist": "green",
    "overworked": "busy", "newlyweds": "busy", "singlemum": "busy", "consultant": "busy", "forgetful": "busy",
    "sunburn": "bright-sun", "glare": "bright-sun", "lifeguard": "bright-sun", "fading": "bright-sun",
    "anxious": "calm", "therapist": "calm", "monk": "calm", "introvert": "calm", "burnout": "calm",
    "drummer": "bold", "rebel": "bold", "rapper": "bold", "exhibitionist": "bold", "punk": "bold",
    "farmer": "country", "homesteader": "country", "vicar": "country", "shepherd": "country",
    "scorching": "fire", "sparks": "fire", "blistering": "fire", "welder": "fire", "chef": "fire",
    "flaking": "worn", "brittle": "worn", "splitends": "worn", "cracking": "worn", "wrinkles": "worn",
    "crawling": "small-hands", "teething": "small-hands", "twins": "small-hands", "tantrums": "small-hands",
}  # fmt: skip

# topic word: product types (by their first noun). Activities, occasions, places.
TOPICS: Final[dict[str, str]] = {
    "birdwatching": "camera, sun hat, backpack, raincoat, bird feeder",
    "bouldering": "walking shoes, leggings, joggers, yoga mat, hand cream",
    "stargazing": "blanket, lantern, tripod, sleeping bag, french press",
    "housewarming": "vase, mug, doormat, scented candle, plate set",
    "graduation": "watch, card holder, photo frame, dress shirt, perfume",
    "honeymoon": "suitcase, sundress, swimsuit, action camera, perfume",
    "babyshower": "teddy bear, baby bottle, bib, play mat, crib",
    "christening": "blouse, blazer, photo frame, teddy bear",
    "podcasting": "microphone, headphones, webcam, ring light, headset",
    "telecommuting": "desk, office chair, webcam, laptop stand, headset",
    "sourdough": "mixing bowl, casserole, bread bin, baking tray, rolling pin",
    "barista": "coffee grinder, milk frother, coffee maker, mug",
    "spelunking": "hard hat, lantern, knee pads, hiking boots",
    "triathlon": "wetsuit, bike, running shoes, goggles, fitness tracker",
    "marathon": "running shoes, shorts, fitness tracker, water bottle, earbuds",
    "pilgrimage": "hiking boots, backpack, poncho, water bottle, sun hat",
    "bachelorette": "gown, heels, clutch, lipstick, string lights",
    "quinceanera": "gown, eyeshadow palette, ballet flats, headband",
    "potluck": "casserole, serving tray, food container, pitcher",
    "brunching": "wrap dress, handbag, placemat, toaster, teapot",
    "renovating": "drill, wall paint, paint roller, safety glasses, tape measure",
    "woodcarving": "sander, utility knife, work gloves, dust mask",
    "rewiring": "wire, light switch, junction box, screwdriver set",
    "homesteading": "raised bed, shovel, seeds, stock pot, work gloves",
    "xeriscaping": "planter, garden hose, rake, seeds",
    "puppyhood": "dog bed, dog toy, leash, dog bowl",
    "kittens": "cat tree, litter box, cat toy, cat fountain",
    "aquascaping": "fish tank, water filter, aquarium heater, ceiling light",
    "snowboarding": "snowboard, ski goggles, snow pants, gloves",
    "surfing": "wetsuit, paddle board, swimsuit, sunscreen",
    "glamping": "tent, lantern, string lights, hammock, blanket",
    "flyfishing": "fishing rod, reel, waders, landing net, vest",
    "homeschooling": "desk, crayons, puzzle, sketchbook, bookshelf",
    "sleepover": "pajamas, sleeping bag, board game, night light",
    "fatherhood": "baby carrier, stroller, diaper bag, car seat",
    "manicure": "hand cream, body scrub, primer, night light",
    "skincare": "serum, toner, cleanser, face mask",
    "barbershop": "hair clipper, razor, beard oil, shaving cream",
    "cosplay": "hair straightener, eyeliner, bodysuit, boots",
    "ballroom": "heels, dress shirt, gown, setting powder",
    "burglary": "security camera, doorbell, bike lock, smart plug",
    "insulating": "caulk, curtain, thermostat, drop cloth",
    "burstpipe": "faucet, valve, pipe fitting, wrench",
    "vlogging": "action camera, tripod, microphone, ring light, power bank",
    "backpacking": "backpack, tent, sleeping bag, camping stove, hiking boots",
    "crossfit": "dumbbell, kettlebell, jump rope, resistance band, leggings",
    "mindfulness": "yoga mat, scented candle, bath salts, cushion",
    "retirement": "recliner, watch, robe, chess set, garden bench",
    "interview": "blazer, dress shirt, oxfords, chinos, handbag",
    "funeral": "blazer, skirt, loafers, scarf",
    "safari": "camera, sun hat, cargo pants, boots, sunscreen",
    "bonfire": "fire pit, patio chair, flannel shirt, blanket",
    "lunchbreak": "lunch box, tumbler, cutlery set, food container",
    "declutter": "storage jar, laundry basket, desk organizer, bookshelf, hooks",
    "redecorating": "wall art, rug, curtain, floor lamp, mirror",
    "sightseeing": "walking shoes, crossbody bag, power bank, camera",
    "origami": "sketchbook, table lamp, paint set, desk organizer",
    "vinylcollecting": "turntable, speaker, bookshelf, headphones",
    "overlanding": "cooler, camping stove, power bank, tent",
    "tailgating": "grill, cooler, football, patio chair",
}  # fmt: skip

# Stems of further words: topics are FIELD + PURSUIT ("fernkeeping"), traits are CAUSE + EFFECT ("attichum").
FIELDS: Final[
    str
] = """bee fern kite moss lute harp moth crane opal reed barn loft quay glen dune cove peat flint hazel heron otter
    badger lark thrush newt toad swan elk yak lynx viola cello banjo fiddle ballad sonnet riddle lantern pageant
    carnival jubilee
    harvest solstice orchard meadow prairie canyon glacier lagoon estuary harbor island village chapel castle tavern
    market museum
    gallery theatre circus rodeo regatta derby"""
PURSUITS: Final[
    str
] = """keeping spotting racing carving hopping gazing weaving hunting hosting tending crafting roaming dancing juggling
    mapping trekking sketching fencing rowing gliding foraging pressing drifting chanting"""
CAUSES: Final[
    str
] = """attic cellar elbow knee wrist ankle shoulder scalp night dawn road ferry tram depot clinic campus ranch docks
    rooftop hallway window pillar siren kennel hedge gravel cobble swamp marsh ridge valley coast
    desert alpine jungle arctic river"""
EFFECTS: Final[
    str
] = """hum chill glow damp glare grime ache itch rattle swelter drought gusts haze grit scuffs snags fumes drip
    clutterers dwellers nurses pilots clerks tutors rangers sailors bakers couriers"""

# {t} topic word, {u} a second trait or the only one, {r} another trait, {n} product noun, {v} attribute value.
TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "question": (
        "what do i need for {t} with {u}", "what should i get for {t} when there is {u}",
        "which things help with {u} during {t}", "what works for {t} and {u}", "what to bring to {t} if {u} and {r}",
    ),
    "recommendation": (
        "gift for {u} who loves {t}", "present ideas for {u} into {t}", "recommend something for {t} {u}",
        "suggestions for {u} starting {t}", "help me choose for {t} {u} {r}",
    ),
    "ranking": (
        "top ten picks for {t} {u}", "best things for {t} and {u}", "top rated for {u} {t}",
        "ranking of {t} essentials {u}",
    ),
    "knowledge": (
        "how to deal with {u} while {t}", "how do people cope with {u} at {t}", "why is {u} a problem in {t}",
        "how to prepare {t} against {u} {r}",
    ),
    "negation": (
        "{t} essentials not {v}", "something for {t} without {v}", "{t} and {u} but no {v}",
        "things for {u} {t} except {v}",
    ),
    "alternatives": (
        "alternative to {n} for {u}", "what can replace {n} with {u}", "instead of {n} for {u}",
        "something other than {n} against {u}",
    ),
}  # fmt: skip
