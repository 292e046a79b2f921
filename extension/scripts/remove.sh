#!/usr/bin/env bash
# Stops the agent and removes it under both its names, with its service and its log. Settings and state stay.
set -euo pipefail

bash "$(dirname "${BASH_SOURCE[0]}")/../install.sh" --uninstall
rm -f "$HOME/.sindri/logs/draupnir.log" "$HOME/.sindri/logs/draupnir.log.1"
