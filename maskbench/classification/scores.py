"""Scores of classifiers, and their names."""

import numpy as np


def classification_scores(labels, predictions) -> dict[str, float]:
    """Accuracy, macro precision and macro recall; a class never predicted has precision 0."""
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    return {
        "accuracy": accuracy_score(labels, predictions),
        "precision": precision_score(labels, predictions, average="macro", zero_division=0),
        "recall": recall_score(labels, predictions, average="macro", zero_division=0),
    }


def standard_error(deviation, draws):
    """Of a mean over draws, numbers or arrays: from their deviation (ddof 0, as the tables hold); of one draw, it."""
    return deviation / np.sqrt(np.maximum(draws - 1, 1))


NAMES = {"mlp": "MLP", "forest": "random forest", "adaboost": "AdaBoost"}
