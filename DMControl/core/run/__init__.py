"""What any run needs: settings, folder, saves, logs, the loop's parts. Knows no environment and no algorithm."""
