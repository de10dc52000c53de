"""A user's script that a strict type checker accepts."""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.pruners import RacingPruner

clf = DiffusionClassifier(loss="l1", batch_size=4, pruner=RacingPruner(), priors=[1, 2])
clf = clf.fit(None, ["cat", "dog"])
seconds: float = clf.estimate_cost(10).seconds
loaded: DiffusionClassifier = DiffusionClassifier.load("folder")
winners: list[str] = loaded.errors(["cat.png"]).certificate.winner.tolist()
