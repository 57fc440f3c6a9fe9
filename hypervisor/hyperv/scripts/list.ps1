# consort hyper-v protocol 1: list

# list returns our machines, or the one of an ID, and what is kept of them: a
# machine without a virtual machine is shelved.
function Invoke-Request($a) {
    $vms = @{}
    foreach ($vm in Get-VM) {
        $mark = Get-Mark $vm
        if ($mark) { $vms[$mark] = $vm }
    }
    $ids = @($vms.Keys)
    $folder = [IO.Path]::Combine($script:Store, 'machines')
    if (Test-Path -LiteralPath $folder) { $ids += @(Get-ChildItem -LiteralPath $folder -Directory | ForEach-Object { $_.Name }) }
    $machines = foreach ($id in ($ids | Sort-Object -Unique)) {
        if ($a.id -ne '' -and $id -cne $a.id) { continue }
        $state = ''
        if ($vms.ContainsKey($id)) { $state = [string]$vms[$id].State }
        $life = Read-Life $id
        @{
            id       = $id
            state    = $state
            record   = Read-Whole (Join-Path (Get-MachineFolder $id) 'machine.json')
            making   = (Test-Path -LiteralPath (Join-Path (Get-MachineFolder $id) 'making'))
            starts   = [long]$life.starts
            starting = [long]$life.starting
            started  = [string]$life.started
        }
    }
    @{ machines = @($machines) }
}
