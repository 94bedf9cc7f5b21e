"""Okabe and Ito's colours, which people with colour-blindness tell apart, and a brown."""

BLUE, ORANGE, GREEN, YELLOW = "#0072B2", "#E69F00", "#009E73", "#F0E442"
SKY, VERMILION, PURPLE, BLACK = "#56B4E9", "#D55E00", "#CC79A7", "#000000"
BROWN = "#80502A"
