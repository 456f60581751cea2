"""What touches the test split for a reported number: the best trial, ensemble, soup, the comparison of networks.

The test split chooses nothing: epochs, trials and members are chosen on validation before test is looked at.
"""
