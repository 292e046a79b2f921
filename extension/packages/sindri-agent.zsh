#compdef sindri-agent draupnir
# Written by tests/manual.rs from the tables behind --help; change those.
local -a calls=(
  'replay:run a recording through the state machine'
  'doctor:check everything between this machine and the console'
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
esac
