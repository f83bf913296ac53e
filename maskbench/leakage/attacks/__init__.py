"""Attacks on masks: what somebody who was not meant to see the images can find out. A file a family.

Each file has functions of tensors, and beside them thin functions of a :class:`maskbench.leakage.knowledge.Knowledge`,
which the table of :mod:`maskbench.leakage.plan` names. Throughout, ``codes`` are the masked vectors ``[N, D]`` as the
attacker reads them, ``images`` float32 ``[N, 3, S, S]`` in [0, 1], ``pixels`` the same as ``[N, 3 S S]``.

That codes of independently trained encoders differ by little more than a linear map, so that a few pairs, or none,
align them, is known from word vectors (Conneau et al., "Word translation without parallel data", ICLR 2018) and image
models (Moschella et al., "Relative representations enable zero-shot latent space communication", ICLR 2023); "instance
encodings" of images fell to such attacks (Carlini et al., "Is private learning possible with instance encoding?", IEEE
S&P 2021).
"""
