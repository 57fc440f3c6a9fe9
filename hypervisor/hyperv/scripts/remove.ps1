# consort hyper-v protocol 1: remove

# remove takes a machine that is off out of the host. What is kept of it goes
# last, for it tells the next call what is left to do; to shelve keeps it.
# Checkpoints are folded into the disks first and waited for: left to Hyper-V,
# that happens after the machine is gone, unseen by us.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $making = 'consort-making-{0}' -f $a.id
    Get-VM | Where-Object { $_.Name -ceq $making } | Remove-VM -Force
    if ($null -ne (Find-Machine $a.id)) {
        $vm = Get-Resting $a.id
        if ($a.shelve) { Clear-Unfinished $a.id }
        Clear-Saved $vm
        Get-VMSnapshot -VM $vm | Remove-VMSnapshot
        $vm = Get-Resting $a.id
        Remove-VM -VM $vm -Force
    }
    foreach ($file in $a.drop) {
        $path = Get-Stored $file
        if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -Force }
    }
    $folder = Get-MachineFolder $a.id
    if (-not $a.shelve -and (Test-Path -LiteralPath $folder)) {
        $gone = Get-Stored ('gone\{0}' -f $a.id)
        New-Item -ItemType Directory -Force -Path (Get-Stored 'gone') | Out-Null
        if (Test-Path -LiteralPath $gone) { Remove-Item -LiteralPath $gone -Recurse -Force }
        Move-Item -LiteralPath $folder -Destination $gone
        Remove-Item -LiteralPath $gone -Recurse -Force
    }
    @{}
}
