"""The evaluation of trained models on the test split: the best trial, ensemble, soup, the comparison of networks.

The test split chooses nothing: epochs, trials and members are chosen on validation before test is evaluated. Reported
test metrics come from this package alone.
"""
