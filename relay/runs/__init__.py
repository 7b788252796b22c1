"""Run and sweep directories, and everything that names, plans, locks and describes them."""
