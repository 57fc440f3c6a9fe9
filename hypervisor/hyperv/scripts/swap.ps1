# consort hyper-v protocol 1: swap

# swap gives a disk of a machine that is off another file, records that, and
# removes the old one; a checkpoint keeps what it needs of it.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Resting $a.id
    Clear-Saved $vm
    $path = Get-Stored $a.disks[$a.slot].file
    $drive = Get-Drive $vm $a.slot
    $old = ''
    if ($null -ne $drive) { $old = [string]$drive.Path }
    if ($old -ne $path) {
        if ($null -ne $drive) { Remove-VMHardDiskDrive -VMHardDiskDrive $drive }
        Join-Disks $vm $a.disks
        if ($vm.Generation -eq 2) { Set-VMFirmware -VM $vm -BootOrder @(Get-VMHardDiskDrive -VM $vm | Sort-Object ControllerLocation) }
    }
    Write-Whole (Join-Path (Get-MachineFolder $a.id) 'machine.json') $a.record
    if ($old -ne $path -and $old -ne '' -and (Test-Path -LiteralPath $old)) { Remove-Item -LiteralPath $old -Force }
    @{}
}
