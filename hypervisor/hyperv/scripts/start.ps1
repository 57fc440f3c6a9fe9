# consort hyper-v protocol 1: start

# start powers a machine on. The count is written before and after, so that a
# cut in between is settled by whoever finds the machine running.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Machine $a.id
    $life = Read-Life $a.id
    $state = [string]$vm.State
    if (@('Running', 'Paused') -ccontains $state) {
        if ($life.starting -gt $life.starts) {
            $life.starts = $life.starting
            Write-Life $a.id $life
        }
        return @{}
    }
    if (@('Off', 'Saved') -cnotcontains $state) { Stop-With 'busy' ('machine {0} is {1}' -f $a.id, $state) }
    if (-not $a.adopted) { Join-Disks $vm $a.disks }
    Clear-Unfinished $a.id
    $life.starting = $life.starts + 1
    $life.started = [DateTime]::UtcNow.ToString('o')
    Write-Life $a.id $life
    if (-not $a.adopted) { Reset-VMResourceMetering -VM $vm }
    Start-VM -VM $vm
    $life.starts = $life.starting
    Write-Life $a.id $life
    @{}
}
