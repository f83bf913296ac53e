"""The paper's numbers, and our targets beside them.

Source: Lis, Koryciński, Ciecierski, "Classification of masked image data", PLoS ONE 16(7): e0254181, 2021,
https://doi.org/10.1371/journal.pone.0254181. This module imports nothing, so every script may use it.
"""

METRICS = ("accuracy", "precision", "recall")  # the order of the numbers in a cell of TABLE_1 and TABLE_2

# classifiers of masked CIFAR-100: (method, number of classes) -> one number a metric, means over draws of classes
TABLE_1 = {
    ("mlp", 2): (0.852, 0.855, 0.851),
    ("mlp", 3): (0.804, 0.805, 0.804),
    ("mlp", 4): (0.769, 0.771, 0.769),
    ("forest", 2): (0.822, 0.822, 0.823),
    ("forest", 3): (0.625, 0.748, 0.626),
    ("forest", 4): (0.435, 0.746, 0.428),
    ("adaboost", 2): (0.804, 0.805, 0.804),
    ("adaboost", 3): (0.660, 0.670, 0.659),
    ("adaboost", 4): (0.592, 0.600, 0.592),
}
# classifiers of masked MNIST
TABLE_2 = {
    ("mlp", 10): (0.983, 0.983, 0.983),
    ("forest", 10): (0.672, 0.920, 0.666),
    ("adaboost", 10): (0.689, 0.685, 0.684),
}
SCORES = {"cifar100": TABLE_1, "mnist": TABLE_2}  # by dataset

# mean and standard deviation of the MSE, four autoencoders on CIFAR-10: (images, pair) -> (mean, standard deviation)
CROSS_PAIR_ERRORS = {
    ("patterns", "matched"): (0.001811, 0.000647),
    ("patterns", "unmatched"): (0.312014, 0.065740),
    ("train", "matched"): (0.003543, 0.000764),
    ("train", "unmatched"): (0.111649, 0.014910),
    ("validation", "matched"): (0.003550, 0.000709),
    ("validation", "unmatched"): (0.112298, 0.012321),
}

# our target: how many times worse an unmatched decoder is to be at least; the ratios of the errors above
RATIO_GOALS = {"patterns": 172, "train": 31.5, "validation": 31.5}
# our target: lowest and highest good value of what maskbench.reproduce.measure finds; "" where there is no bound
PRIOR_GOALS = {
    "mean": ("", 0.1),
    "deviation_min": (0.9, ""),
    "deviation_max": ("", 1.1),
    "kurtosis": (2.7, 3.3),
    "correlation": ("", 0.1),
    "category_min": (0.02, ""),
    "category_max": ("", 0.1),
    "logistic": ("", ""),
    "mlp": ("", 0.65),
    "length": ("", 0.65),
    "gaussian_discriminator_loss": ("", ""),  # undecided: 1.39
    "categorical_discriminator_loss": ("", ""),
    "discriminator_loss": (2.4, ""),  # both together; undecided: 2.77
    "generator_loss": ("", 2.0),  # undecided: 1.39
}
