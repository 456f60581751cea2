"""What is wrong with a data set, told before an hour is spent on it: its labels, splits, duplicates, unfit photographs.

`labels` counts what the labels tell; `look` and `duplicates` look at the photographs (see
`retina.data.photograph_pool` and `retina.data.perceptual_hash`); `run` does it all, `findings` puts it into sentences,
`terminal` and `page` show it.
"""

from retina.callable_package import make_callable

make_callable(__name__)
