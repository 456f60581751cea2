"""Reports what is wrong with a data set before training: labels, splits, duplicates, photographs unfit to be graded.

`labels` computes statistics of the labels; `inspect_photograph` and `duplicates` read the photographs (see
`retina.data.photograph_pool` and `retina.data.perceptual_hash`); `runner` runs the whole audit, `findings` words its
results as sentences, `terminal` and `page` display it.
"""
