//! COCO's 80 object categories and plain words for them.

/// A category a line, then words that stand for it, in the singular.
pub const COCO: &str = "\
person, man, woman, boy, girl, child, kid, baby, toddler, infant, lady, guy, gentleman, adult, teenager, crowd, player, \
batter, pitcher, catcher, umpire, skier, snowboarder, surfer, skateboarder, skater, cyclist, biker, rider, passenger, \
driver, chef, cook, waiter, waitress, worker, officer, policeman, police officer, fireman, soldier, farmer, tourist, \
pedestrian, spectator, student, teacher, bride, groom, mother, father, son, daughter, brother, sister, friend, \
family, someone
bicycle, bike, mountain bike
car, automobile, taxi, cab, suv, sedan, minivan, van, convertible, police car
motorcycle, motorbike, motor bike, moped, scooter
airplane, plane, aeroplane, aircraft, jet, jetliner, airliner, biplane
bus, minibus, school bus, coach bus, double decker
train, locomotive, passenger train, tram, streetcar
truck, lorry, pickup, pickup truck, fire truck, dump truck, semi truck
boat, ship, sailboat, canoe, kayak, ferry, yacht, rowboat, gondola, motorboat
traffic light, traffic signal, stop light, stoplight
fire hydrant, hydrant
stop sign
parking meter
bench, park bench
bird, pigeon, seagull, gull, duck, goose, parrot, owl, swan, crow, flamingo, hen, rooster, eagle, sparrow, pelican, \
parakeet, heron, penguin
cat, kitten, kitty
dog, puppy, hound, poodle, terrier, bulldog, retriever
horse, pony, foal, stallion, colt, mare
sheep, lamb, ewe, ram
cow, cattle, bull, calf, ox, heifer
elephant
bear, grizzly, polar bear, panda, grizzly bear
zebra
giraffe
backpack, rucksack, knapsack
umbrella, parasol
handbag, purse, hand bag
tie, necktie, bow tie, bowtie
suitcase, luggage, suit case
frisbee, flying disc
skis, ski
snowboard, snow board
sports ball, ball, baseball, soccer ball, tennis ball, football, basketball, volleyball
kite
baseball bat, bat
baseball glove, mitt, catcher mitt
skateboard, skate board
surfboard, surf board, longboard
tennis racket, racket, racquet, tennis racquet
bottle, beer bottle, water bottle, wine bottle
wine glass, wineglass
cup, mug, coffee cup, teacup
fork
knife
spoon
bowl
banana
apple
sandwich, burger, hamburger, cheeseburger, panini, sub sandwich
orange, orange slice
broccoli
carrot
hot dog, hotdog
pizza
donut, doughnut
cake, cupcake, cheesecake, birthday cake
chair, armchair, stool, recliner, rocking chair
couch, sofa, loveseat
potted plant, houseplant, house plant, pot plant
bed
dining table, table, desk, coffee table
toilet, urinal, toilet seat, toilet bowl
tv, television, tv set, television set, monitor
laptop, laptop computer, notebook computer
mouse, computer mouse
remote, remote control, game controller
keyboard, computer keyboard
cell phone, phone, cellphone, mobile phone, smartphone, smart phone, telephone
microwave, microwave oven
oven, stove, stove top oven, stovetop
toaster
sink, basin, washbasin
refrigerator, fridge, freezer
book, notebook
clock, clock tower
vase
scissors, scissor
teddy bear, teddy, stuffed bear, stuffed animal
hair drier, hair dryer, hairdryer, blow dryer
toothbrush, tooth brush
";
