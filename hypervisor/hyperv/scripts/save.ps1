# consort hyper-v protocol 1: save

# save writes the memory of a running machine to disk and powers it off.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Machine $a.id
    if (@('Off', 'Saved') -cnotcontains [string]$vm.State) { Save-VM -VM $vm }
    @{}
}
