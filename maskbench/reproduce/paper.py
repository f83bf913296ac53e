"""The numbers of the paper, and our targets beside them."""

# accuracy, precision, recall in the paper's Tables 1 and 2
PAPER = {
    ("mlp", 2): (0.852, 0.855, 0.851),
    ("mlp", 3): (0.804, 0.805, 0.804),
    ("mlp", 4): (0.769, 0.771, 0.769),
    ("forest", 2): (0.822, 0.822, 0.823),
    ("forest", 3): (0.625, 0.748, 0.626),
    ("forest", 4): (0.435, 0.746, 0.428),
    ("adaboost", 2): (0.804, 0.805, 0.804),
    ("adaboost", 3): (0.660, 0.670, 0.659),
    ("adaboost", 4): (0.592, 0.600, 0.592),
    ("mlp", 10): (0.983, 0.983, 0.983),  # MNIST
    ("forest", 10): (0.672, 0.920, 0.666),
    ("adaboost", 10): (0.689, 0.685, 0.684),
}
# how many times worse an unmatched decoder is to be at least
RATIO_GOALS = {"patterns": 172, "train": 31.5, "validation": 31.5}
# lowest and highest value that is good, see maskbench.metrics
PRIOR_GOALS = {
    "mean": ("", 0.1),
    "deviation_min": (0.9, ""),
    "deviation_max": ("", 1.1),
    "kurtosis": (2.7, 3.3),
    "correlation": ("", 0.1),
    "category_min": (0.02, ""),
    "category_max": ("", 0.1),
    "logistic": ("", ""),
    "mlp": ("", 0.6),
}
