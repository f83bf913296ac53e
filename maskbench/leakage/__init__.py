"""What masks leak: attacks, what an attacker knows, the audit and its report.

``knowledge`` says what an attacker can have, ``threats`` who has what, ``attacks`` is what they do with it; ``plan`` is
the table of all attacks. ``world`` holds the truth, which ``scores`` measures answers by and no attack is given.
``audit`` runs the plan, ``frontier`` sets accuracy beside leakage, ``report`` and ``figures`` show the tables.

An attack is a function of a Knowledge and a line of ``plan.ATTACKS``.
"""
