"""implicit.gpu, as far as programs ask whether there is one.

`HAS_CUDA` is False even where recfuse can use a GPU: programs take it to mean that factors are
matrices of implicit's own in the memory of the GPU. Here they are NumPy arrays, always; a GPU is
used where ``use_gpu=True`` asks for it.
"""

HAS_CUDA = False
