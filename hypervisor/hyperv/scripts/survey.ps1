# consort hyper-v protocol 1: survey

# survey returns the virtual machines that are not ours, or the one of an ID,
# as they are.
function Invoke-Request($a) {
    $found = foreach ($vm in Get-VM) {
        $mark = Get-Mark $vm
        $id = ([string]$vm.Id).ToLowerInvariant()
        if ($mark -or $vm.Name -clike 'consort-making-*') { continue }
        if ($a.id -ne '' -and $id -cne $a.id) { continue }
        $disks = foreach ($drive in @(Get-VMHardDiskDrive -VM $vm | Sort-Object ControllerType, ControllerNumber, ControllerLocation)) {
            $size = [long]0
            if ($drive.Path -and (Test-Path -LiteralPath $drive.Path)) { $size = [long](Get-VHD -Path $drive.Path).Size }
            @{ path = [string]$drive.Path; size = $size }
        }
        $nics = foreach ($nic in Get-VMNetworkAdapter -VM $vm) { @{ mac = [string]$nic.MacAddress; switch = [string]$nic.SwitchName } }
        @{
            id         = $id
            name       = [string]$vm.Name
            state      = [string]$vm.State
            generation = [int]$vm.Generation
            cpus       = [int]$vm.ProcessorCount
            memory     = [long]$vm.MemoryStartup
            clustered  = [bool]$vm.IsClustered
            replicated = ([string]$vm.ReplicationMode -ne 'None')
            disks      = @($disks)
            nics       = @($nics)
        }
    }
    @{ found = @($found) }
}
