# shellcheck shell=bash
# Names and times the stages of a run, for .ci/run and tests/run to source.
#
# It decides nothing about what a stage does. `stage` stops the script at a failing command as `set -e` would;
# `try_stage` remembers the failure in `failed` and goes on, so that one run shows everything that is broken.

failed=()
stage_times=()

# stage NAME COMMAND…: runs it between two lines that tell its name and how long it took.
stage() {
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" </dev/null || status=$?
  local seconds=$((SECONDS - start)) end="finished"
  [ $status = 0 ] || end="FAILED with status $status"
  stage_times+=("$(printf '%5d s  %s' $seconds "$name")")
  printf -- '--- %s: %s after %d s (%d s in all)\n' "$name" "$end" $seconds $SECONDS
  return $status
}

# try_stage NAME COMMAND…: the same, and a failure is only remembered.
try_stage() { stage "$@" || failed+=("$1"); }

# print_stage_times: one line a stage, for the end of a run.
print_stage_times() {
  [ ${#stage_times[@]} = 0 ] || printf '%s\n' "${stage_times[@]}"
}
