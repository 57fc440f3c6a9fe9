# consort hyper-v protocol 1: stop

# stop pulls the plug, or only asks the guest through the shutdown integration
# service; asked says whether there is anything to wait for.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Machine $a.id
    if (@('Off', 'Saved') -ccontains [string]$vm.State) { return @{ asked = $false } }
    $life = Read-Life $a.id
    if ($life.starting -gt $life.starts) {
        $life.starts = $life.starting
        Write-Life $a.id $life
    }
    if ($a.hard) {
        Stop-VM -VM $vm -TurnOff -Force
        return @{ asked = $false }
    }
    $service = Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_ShutdownComponent |
        Where-Object { $_.SystemName -eq [string]$vm.Id } | Select-Object -First 1
    if ($null -eq $service) { return @{ asked = $false } }
    $reply = Invoke-CimMethod -InputObject $service -MethodName InitiateShutdown -Arguments @{ Force = $true; Reason = 'Consort powers the machine off' }
    @{ asked = (@(0, 4096) -contains [int]$reply.ReturnValue) }
}
