"""Scores of classifiers, and their names."""

import numpy as np

NAMES = {"mlp": "MLP", "forest": "random forest", "adaboost": "AdaBoost"}
METRICS = ("accuracy", "precision", "recall")


def classification_scores(labels, predictions) -> dict[str, float]:
    """Accuracy, macro precision and macro recall; a class never predicted has precision 0."""
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    return {
        "accuracy": accuracy_score(labels, predictions),
        "precision": precision_score(labels, predictions, average="macro", zero_division=0),
        "recall": recall_score(labels, predictions, average="macro", zero_division=0),
    }


def standard_error(deviation, draws):
    """Of a mean over draws, from their standard deviation (ddof 0, as the tables hold); of one draw, that itself."""
    return deviation / np.sqrt(np.maximum(draws - 1, 1))
