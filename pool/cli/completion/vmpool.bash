# Completion of vmpool for bash, 4.4 or later.

_vmpool() {
    local line kind value files=
    local -a answer
    COMPREPLY=()
    mapfile -t answer < <(
        _VMPOOL_COMPLETE=bash_complete _VMPOOL_LINE="${COMP_LINE:0:COMP_POINT}" _VMPOOL_BREAKS="$COMP_WORDBREAKS" \
            "${1/#\~/$HOME}" 2>/dev/null
    )
    for line in "${answer[@]}"; do
        kind=${line%%$'\t'*}
        value=${line#*$'\t'}
        case $kind in
        file) files=default ;;
        dir) files=dirnames ;;
        part)
            compopt -o nospace
            COMPREPLY+=("$value")
            ;;
        plain) COMPREPLY+=("$value") ;;
        esac
    done
    [[ -z $files ]] && return
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o "$files" # readline completes the path
        return
    fi
    while IFS= read -r value; do
        if [[ -d $value ]]; then
            compopt -o nospace
            value+=/
        fi
        printf -v value %q "$value"
        COMPREPLY+=("$value")
    done < <(compgen -f -- "$2")
}

complete -o nosort -F _vmpool vmpool
