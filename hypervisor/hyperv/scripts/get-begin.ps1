# consort hyper-v protocol 1: get-begin

# get-begin lays a disk of a machine that is off out in one file without parent.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Resting $a.id
    if ($a.adopted) { $drive = @(Get-VMHardDiskDrive -VM $vm | Sort-Object ControllerType, ControllerNumber, ControllerLocation)[$a.slot] }
    else { $drive = Get-Drive $vm $a.slot }
    if ($null -eq $drive) { Stop-With 'stuck' ('disk {0} of machine {1} is not attached; attach it again' -f $a.slot, $a.id) }
    $path = Get-Stored $a.file
    if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -Force }
    Convert-VHD -Path $drive.Path -DestinationPath $path -VHDType Dynamic
    @{ size = [long](Get-Item -LiteralPath $path).Length; sha256 = (Get-FileHash -LiteralPath $path -Algorithm SHA256).Hash.ToLowerInvariant() }
}
