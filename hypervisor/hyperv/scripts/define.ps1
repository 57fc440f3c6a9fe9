# consort hyper-v protocol 1: define

# define makes a machine that does not exist, under a name of its own until it
# is whole: what a cut left behind is removed first, and that it was a cut is
# told by the file 'making'. Disks without it are those of a shelved machine and
# stay. Only the last step, which names and marks it, makes it a machine.
function Invoke-Request($a) {
    Enter-Turn $a.id
    if ($null -ne (Find-Machine $a.id)) { return @{} }
    $making = 'consort-making-{0}' -f $a.id
    Get-VM | Where-Object { $_.Name -ceq $making } | Remove-VM -Force
    $folder = Get-MachineFolder $a.id
    $unfinished = Join-Path $folder 'making'
    $record = Join-Path $folder 'machine.json'
    New-Item -ItemType Directory -Force -Path $folder | Out-Null
    $fresh = (Test-Path -LiteralPath $unfinished) -or -not (Test-Path -LiteralPath $record)
    if ($fresh) { Write-Whole $unfinished '' }
    foreach ($disk in $a.disks) {
        $path = Get-Stored $disk.file
        if ($disk.make -ceq '') { continue }
        if ($fresh -and (Test-Path -LiteralPath $path)) { Remove-Item -LiteralPath $path -Force }
        if (Test-Path -LiteralPath $path) { continue }
        if ($disk.make -ceq 'empty') { New-VHD -Path $path -Dynamic -SizeBytes $disk.size | Out-Null }
        else { New-VHD -Path $path -Differencing -ParentPath (Get-Stored $disk.make) -SizeBytes $disk.size | Out-Null }
    }
    Write-Whole $record $a.record

    $vm = New-VM -Name $making -Generation $a.generation -MemoryStartupBytes $a.memory -NoVHD -Path $folder
    Set-VMMemory -VM $vm -DynamicMemoryEnabled $false
    Set-VMProcessor -VM $vm -Count $a.cpus
    Set-VM -VM $vm -CheckpointType Standard -AutomaticCheckpointsEnabled $false -AutomaticStartAction Nothing -AutomaticStopAction ShutDown
    Join-Disks $vm $a.disks
    if ($a.generation -eq 2) {
        $drives = @(Get-VMHardDiskDrive -VM $vm | Sort-Object ControllerLocation)
        Set-VMFirmware -VM $vm -EnableSecureBoot Off -BootOrder $drives
    }
    Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
    foreach ($nic in $a.nics) {
        Add-VMNetworkAdapter -VM $vm -SwitchName $nic.switch -StaticMacAddress ($nic.mac -replace ':', '')
    }
    Enable-VMResourceMetering -VM $vm
    Set-VM -VM $vm -NewVMName $a.name -Notes ('consort-machine: {0}' -f $a.id)
    Clear-Unfinished $a.id
    @{}
}
