# Written by tests/manual.rs from the tables behind --help; change those.
# Whether so many words stand before the cursor, and the second is this one.
function __sindri_agent_at
    set -l words (commandline -opc)
    test (count $words) = $argv[1] -a "$words[2]" = "$argv[2]"
end
complete -c sindri-agent -f
complete -c draupnir -w sindri-agent
complete -c sindri-agent -n '__sindri_agent_at 1' -a 'replay' -d 'run a recording through the state machine'
complete -c sindri-agent -n '__sindri_agent_at 2 replay' -F
complete -c sindri-agent -n '__sindri_agent_at 1' -a 'doctor' -d 'check everything between this machine and the console'
complete -c sindri-agent -n '__sindri_agent_at 2 doctor' -a '--json'
complete -c sindri-agent -n '__sindri_agent_at 1' -a 'status' -d 'ask the running agent how it is'
complete -c sindri-agent -n '__sindri_agent_at 2 status' -a '--json'
complete -c sindri-agent -n '__sindri_agent_at 1' -a 'health' -d 'exit 0 while the agent runs; with --ready only if the console is reached'
complete -c sindri-agent -n '__sindri_agent_at 2 health' -a '--ready'
complete -c sindri-agent -n '__sindri_agent_at 1' -a '--version' -d 'print the version'
complete -c sindri-agent -n '__sindri_agent_at 1' -a '--help' -d 'print this and all variables'
