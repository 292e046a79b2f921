#compdef sindri-agent draupnir
# Written by tests/manual.rs from the tables behind --help; change those.
local -a calls=(
  'replay:run a recording through the state machine'
  'doctor:check everything between this machine and the console'
  'status:ask the running agent how it is'
  'health:exit 0 while the agent runs; with --ready only if the console is reached'
  '--version:print the version'
  '--help:print this and all variables'
)
if (( CURRENT == 2 )); then
  _describe command calls
  return
fi
(( CURRENT == 3 )) || return 1
case $words[2] in
  replay) _files ;;
  doctor) compadd -- --json ;;
  status) compadd -- --json ;;
  health) compadd -- --ready ;;
esac
