"""What masks leak: attacks, what an attacker knows, the audit and its report."""
