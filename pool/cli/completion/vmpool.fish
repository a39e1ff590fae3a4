# Completion of vmpool for fish.

function __vmpool_complete
    set -l given (commandline -opc)
    set -l current (commandline -ct)
    set -lx _VMPOOL_COMPLETE fish_complete
    set -lx _VMPOOL_WORDS (string join \x1f -- $given "$current")
    for line in (command $given[1] 2>/dev/null)
        set -l fields (string split \t -- $line)
        switch $fields[1]
            case file
                __fish_complete_path $current
            case dir
                __fish_complete_directories $current ""
            case '*'
                printf '%s\t%s\n' $fields[2] $fields[3]
        end
    end
end

complete --command vmpool --no-files --keep-order --arguments '(__vmpool_complete)'
