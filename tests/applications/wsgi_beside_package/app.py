raise RuntimeError("the package app hides this module")
