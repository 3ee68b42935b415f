"""Hand-written words of the catalogue: the category tree, product types and attribute values.

Notation. Departments have one-letter codes. In ``TREE`` a line is ``Group > Leaf [audience]: type/synonym, type, ...``;
a type's first noun is the one most listings use, the others are synonyms. ``audience`` is w (women), m (men), k
(children), a (adults of either sex) or n (nobody in particular). In the value tables the letters after a value name the
departments that use it.
"""

from typing import Final

DEPARTMENTS: Final[dict[str, str]] = {
    "A": "Apparel",
    "S": "Shoes & Bags",
    "B": "Beauty",
    "E": "Electronics",
    "K": "Kitchen",
    "H": "Home",
    "O": "Sports & Outdoors",
    "T": "Toys & Baby",
    "D": "Hardware",
    "P": "Pets & Garden",
}

# Departments whose titles are more ambiguous: sellers state less, stuff more, and contradict themselves more often.
AMBIGUOUS: Final[str] = "ASBD"

TREE: Final[dict[str, str]] = {
    "A": """
        Women > Dresses [w]: dress/frock, maxi dress, wrap dress, gown/evening gown, pinafore, sundress
        Women > Tops [w]: blouse, camisole/cami, tunic, crop top, bodysuit
        Women > Bottoms [w]: skirt, leggings/tights, culottes, jeggings, palazzo pants
        Men > Shirts [m]: dress shirt, polo shirt/polo, henley, flannel shirt, undershirt
        Men > Trousers [m]: chinos, jeans/denim pants, cargo pants, shorts, joggers/sweatpants
        Outerwear > Jackets [a]: jacket, parka/anorak, trench coat, blazer, vest/gilet, raincoat
        Outerwear > Knitwear [a]: sweater/jumper, cardigan, hoodie, turtleneck, poncho
        Underwear > Sleepwear [a]: pajamas/pyjamas, robe/bathrobe, nightgown, slip, long johns
        Accessories > Headwear [a]: cap, beanie, scarf/shawl, sun hat, gloves/mittens, headband""",
    "S": """
        Shoes > Sneakers [a]: sneakers/trainers, running shoes, skate shoes, slip-ons, walking shoes
        Shoes > Boots [a]: ankle boots, boots, hiking boots, chelsea boots, rain boots/wellies
        Shoes > Dress Shoes [a]: loafers, oxfords, heels/pumps, ballet flats, brogues
        Shoes > Sandals [a]: sandals, flip flops/thongs, slippers/house shoes, clogs, espadrilles
        Bags > Handbags [w]: handbag/purse, tote, clutch, crossbody bag, shoulder bag
        Bags > Travel Bags [a]: backpack/rucksack, suitcase/luggage, duffel bag, fanny pack/waist bag, garment bag
        Bags > Small Leather [a]: wallet, card holder, belt, key pouch, passport cover""",
    "B": """
        Skin > Face Care [w]: face cream/moisturizer, serum, cleanser/face wash, toner, face mask, eye cream
        Skin > Body Care [a]: body lotion, hand cream, body scrub, bath salts, sunscreen/sunblock
        Make-up > Face Make-up [w]: foundation, concealer, blush, setting powder, primer
        Make-up > Eyes and Lips [w]: lipstick, mascara, eyeliner, lip balm, eyeshadow palette
        Hair > Hair Care [a]: shampoo, conditioner, hair oil, hair mask, dry shampoo
        Hair > Hair Tools [a]: hair dryer/blow dryer, curling iron, hair straightener/flat iron, hair brush, hair
            clipper
        Grooming > Shaving [m]: razor/shaver, shaving cream, beard oil, aftershave, beard trimmer
        Grooming > Fragrance [a]: perfume/eau de parfum, cologne, body mist, scented candle, deodorant""",
    "E": """
        Audio > Headphones [n]: headphones, earbuds/earphones, headset, neckband
        Audio > Speakers [n]: speaker, soundbar, turntable/record player, radio, microphone
        Phones > Phone Accessories [n]: phone case/phone cover, charger, power bank, screen protector, phone stand,
            cable
        Computers > Peripherals [n]: keyboard, mouse, monitor, webcam, usb hub, laptop stand
        Computers > Storage [n]: memory card, external drive/portable drive, flash drive, card reader
        Photo > Cameras [n]: camera, tripod, action camera, lens, ring light
        Wearables > Watches [a]: smartwatch, fitness tracker/activity band, watch, watch strap
        Smart Home > Devices [n]: security camera, smart plug, doorbell, thermostat, smart bulb""",
    "K": """
        Cooking > Cookware [n]: frying pan/skillet, saucepan, stock pot, wok, casserole/dutch oven, grill pan
        Cooking > Bakeware [n]: baking tray/baking sheet, cake tin, muffin pan, rolling pin, mixing bowl
        Appliances > Small Appliances [n]: blender, toaster, kettle, air fryer, rice cooker, food processor
        Appliances > Coffee and Tea [n]: coffee maker/coffee machine, french press, teapot, coffee grinder, milk frother
        Dining > Tableware [n]: plate set, bowl, cutlery set/flatware, serving tray, placemat
        Dining > Drinkware [n]: mug, wine glass, tumbler, water bottle/flask, pitcher/jug
        Tools > Kitchen Tools [n]: knife, cutting board/chopping board, peeler, spatula, measuring cups, can opener
        Storage > Food Storage [n]: lunch box/bento box, storage jar, food container, bread bin, spice rack""",
    "H": """
        Bedroom > Bedding [n]: duvet/comforter, pillow, bed sheet, blanket/throw, mattress topper, quilt
        Bedroom > Bedroom Furniture [n]: bed frame, nightstand/bedside table, dresser, wardrobe, headboard
        Living > Seating [n]: sofa/couch, armchair, ottoman/pouf, recliner, bean bag
        Living > Decor [n]: vase, mirror, wall art, photo frame, cushion/throw pillow, artificial plant
        Living > Lighting [n]: table lamp, floor lamp, ceiling light/pendant light, night light, string lights/fairy
            lights
        Floors > Rugs and Curtains [n]: rug/carpet, curtain/drape, doormat, blinds, runner
        Office > Desks and Chairs [n]: desk, office chair, bookshelf/bookcase, filing cabinet, desk organizer
        Bath > Bathroom [n]: towel, shower curtain, bath mat, soap dispenser, laundry basket/hamper""",
    "O": """
        Camping > Camp Gear [n]: tent, sleeping bag, camping stove, lantern, cooler/ice chest, hammock
        Fitness > Home Gym [n]: dumbbell, yoga mat/exercise mat, resistance band, kettlebell, jump rope/skipping rope,
            foam roller
        Cycling > Bike Gear [n]: bike, bike helmet, bike light, bike lock, saddle, bike pump
        Water > Swim and Surf [a]: swimsuit/bathing suit, goggles, wetsuit, paddle board, snorkel, life jacket
        Winter > Snow Gear [a]: ski jacket, snow pants, ski goggles, sled/toboggan, snowboard
        Team > Ball Sports [n]: football, basketball, tennis racket, shin guards, baseball glove
        Fishing > Fishing Gear [n]: fishing rod, reel, tackle box, waders, landing net""",
    "T": """
        Baby > Baby Care [k]: diaper bag, baby bottle, pacifier/dummy, baby monitor, bib, baby carrier/sling
        Baby > Nursery [k]: crib/cot, stroller/pram, car seat, high chair, play mat, changing pad
        Toys > Building Toys [k]: building blocks, model kit, marble run, magnetic tiles, train set
        Toys > Soft Toys [k]: teddy bear/plush bear, doll, hand puppet, plush toy/stuffed animal
        Toys > Games [k]: board game, puzzle/jigsaw, card game, chess set, dart board
        Toys > Outdoor Toys [k]: scooter, trampoline, water gun, kite, sandbox/sandpit
        Craft > Arts and Crafts [k]: crayons, paint set, sketchbook, clay/modelling dough, bead kit, easel""",
    "D": """
        Tools > Power Tools [n]: drill, circular saw, sander, angle grinder, impact driver, jigsaw tool
        Tools > Hand Tools [n]: hammer, screwdriver set, wrench/spanner, pliers, tape measure, utility knife
        Fixings > Fasteners [n]: screws, wall anchors, bolts, nails, hooks
        Electrical > Electrical Supplies [n]: extension cord, light switch, junction box, circuit breaker, wire
        Plumbing > Plumbing Supplies [n]: faucet/tap, shower head, pipe fitting, drain strainer, valve
        Paint > Painting Supplies [n]: wall paint, paint brush, paint roller, drop cloth, caulk/sealant
        Safety > Work Safety [a]: work gloves, safety glasses, ear muffs, hard hat, knee pads, dust mask""",
    "P": """
        Dogs > Dog Supplies [n]: dog bed, leash/dog lead, dog harness, dog toy, dog bowl, dog coat
        Cats > Cat Supplies [n]: cat tree/scratching post, litter box, cat toy, pet carrier, cat fountain
        Garden > Garden Tools [n]: pruner/secateurs, shovel/spade, rake, garden hose, watering can, wheelbarrow
        Garden > Planting [n]: planter/flower pot, seeds, potting soil, raised bed, plant stand, trellis
        Garden > Outdoor Living [n]: patio chair, parasol/patio umbrella, fire pit, grill/barbecue, bird feeder,
            garden bench
        Aquarium > Fish Supplies [n]: fish tank/aquarium, water filter, aquarium heater, fish food""",
}

FUNCTION: Final[str] = """
    waterproof ASEODPHT, windproof ASO, breathable ASOPT, quick-dry AOKH, thermal ASOK, insulated KOSP, cooling ABHPE,
    moisture-wicking ASO, stretch AS, wrinkle-free AH, anti-slip SKOPHT, shock-absorbing SEOD, non-stick K,
    dishwasher-safe KTP, heat-resistant KDBE, odor-control SAPKH, noise-cancelling E, silent EKDHP, fast-charging ED,
    wireless EDO, rechargeable EDOTPB, long-lasting EBD, backlit ED, dimmable HE, stain-resistant HATP,
    hypoallergenic BHTPA, fragrance-free BTPH, hydrating B, brightening B, oil-control B, sun-protection BAOT,
    volumizing B, repairing B, soothing BTP, antibacterial KHBPTA, rustproof DKOP, magnetic DEKT, cordless DHBE,
    adjustable HOTPDS, reinforced DSOATP, child-safe THK, educational T, sensory T, chew-proof PT, automatic PKE,
    self-cleaning PK, leakproof KOTP, space-saving KHD, blackout H, massage HBS, orthopedic HSP, supportive ASOT,
    glow-in-the-dark TOP, reflective OSPA, uv-resistant POH, fireproof DH, dustproof EHD, shatterproof KET,
    scratch-resistant EKH, weatherproof PDEH, energy-saving EKH, biodegradable KPBHT"""

MODIFIER: Final[str] = """
    portable EKOTBP, compact EKHODT, lightweight ASEOTPD, heavy-duty DOPKS, slim AEHS, oversized AHS, mini EKBTDP,
    foldable HOTPKE, modular HEDK, stackable KHT, handmade ASKHTP, durable DOSPT, soft AHTBP, extra-long AHEDPO,
    double-layer AKOH, multi-purpose DKOHBE, travel-size BEKS, detachable ASEPT, extendable DHEP, ergonomic EHDSK,
    seamless AOB, padded SOAPTH, curved EHDB, refillable BKP, wide SOHK, high-waisted A, cropped A, pocketed AS"""

MATERIAL: Final[str] = """
    cotton AHTP, linen AHK, wool AHSO, cashmere A, silk AHB, denim AS, leather ASHE, suede SA, nylon ASOEP, polyester
    AOHTP,
    fleece AOHP, velvet AHS, rubber SODPT, canvas SHOP, mesh SAOEH, stainless steel KEDPB, cast iron KP, aluminum EKODB,
    ceramic KHBP, glass KHEB, bamboo KHBTP, oak HTK, walnut HK, pine HTDP, rattan HPS, marble HK, plastic EKTDPOB,
    silicone KEBTP, titanium EOD, carbon fiber EOS, brass DHP, copper KDH, down AHO, memory foam HSP, bamboo fiber AHT,
    clay BP, shea butter B, argan oil B, aloe vera B, collagen B, charcoal B, vinyl DHT, galvanized steel DP, jute
    HSP"""

STYLE: Final[str] = """
    casual AS, elegant ASHB, bohemian ASH, classic ASHEKB, vintage ASHEKT, sporty ASEO, minimalist ASHEK, romantic ABH,
    streetwear AS, preppy AS, gothic ABH, industrial HDE, rustic HKP, nordic HKT, modern HEKDP, farmhouse HKP,
    cottage HKPT, luxury ASBHE, natural BHTK, matte BEKDS, glossy BEHS, retro EKST, cartoon TASE, futuristic ET,
    professional DBKEO, tactical OSD, coastal HAP, art deco HBS"""

COLOR: Final[
    str
] = """black, white, red, navy, blue, green, pink, grey, beige, brown, purple, yellow, orange, gold, silver,
    teal, burgundy, ivory, khaki, turquoise, lavender, coral, mint, charcoal grey"""

PATTERN: Final[
    str
] = """striped, floral, plaid, polka dot, solid, leopard, geometric, camouflage, paisley, tie dye, herringbone,
    checkered, embroidered, quilted pattern, marbled, animal print"""

SEASON: Final[str] = "spring, summer, autumn, winter, all season"

SCENE: Final[
    str
] = """office ASHE, party AS, beach ASOT, gym ASOE, bedroom H, garage DH, balcony PH, classroom TS, workshop D,
    campsite OKE, bathroom HBD, nursery HT, patio PH, commuting SEAO, travel SEBO, dining room KH, backyard PTO"""

LOCATION: Final[
    str
] = """italian ASKH, japanese KEBHP, french BKAH, korean BASE, german DKEO, swiss EBO, turkish HAK, moroccan HBA,
    english PHK, danish HTK, american DOAP, portuguese KHS"""

SPECIFICATIONS: Final[dict[str, str]] = {
    "A": "xs, size s, size m, size l, xl, xxl, plus size, petite",
    "S": "size 36, size 38, size 40, size 42, size 44, wide fit, 20l, 40l",
    "B": "30ml, 50ml, 100ml, 250ml, 500ml, set of 3, spf 30, spf 50",
    "E": "64gb, 128gb, 1tb, 10000mah, 20w, 65w, 27 inch, 4k, 2 pack",
    "K": "20cm, 24cm, 28cm, 1 liter, 2 liter, set of 4, set of 6, 350ml, 12 piece",
    "H": "twin, queen size, king size, 120cm, 160cm, 2 pack, 60x90, 3 tier",
    "O": "5kg, 10kg, 2 person, 4 person, 26 inch, 30l, adult size, youth size",
    "T": "100 piece, 500 piece, 1000 piece, 12 colors, 24 colors, ages 3+, ages 6+, newborn size",
    "D": "12v, 18v, 20v, 10mm, 1/2 inch, 100 pack, 50 piece, 5 meter, 10 meter",
    "P": "small breed, large breed, 5 gallon, 20 gallon, 30cm, 15 meter, 2kg, 6 pack",
}

MARKETING: Final[
    str
] = """hot sale, bestseller, new arrival, limited offer, high quality, free shipping, factory direct,
    clearance, must have, 100% genuine, trending, bargain, super value, exclusive, original, fast delivery"""

PRICE: Final[tuple[str, ...]] = ("cheap", "affordable", "mid-range", "premium", "high-end")

AUDIENCE: Final[tuple[str, ...]] = ("women", "men", "girls", "boys", "kids", "toddlers", "teens", "seniors", "unisex")

# Letters are frequent in brand names of many languages; syllables are joined and the result is checked for novelty.
SYLLABLES: Final[
    str
] = """al an ar ba bel bo bri ca ce cor da del do dra el en er fa fen fi fo ga gar gla go ha hel hi ja jo ka
    kel ki ko la lan le lin lo lu ma mar mel mi mo na nar ne no nu ol or pa pel pi po ra ri ro sa sel si so ta tel ti
    to tra ul
    va vel vi vo wen wil xa ya yo za zel zi zo"""
