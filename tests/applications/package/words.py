GREETING = "package"
