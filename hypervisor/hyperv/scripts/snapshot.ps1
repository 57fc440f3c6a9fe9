# consort hyper-v protocol 1: snapshot

# snapshot takes, applies, drops or lists checkpoints. Volumes are no part of
# them: they are out of the machine while one is taken, and joined again after.
function Invoke-Request($a) {
    if ($a.act -ceq 'list') {
        $vm = Get-Machine $a.id
        return @{ names = @(Get-VMSnapshot -VM $vm | Sort-Object CreationTime | ForEach-Object { [string]$_.Name }) }
    }
    Enter-Turn $a.id
    $vm = Get-Resting $a.id
    $found = @(Get-VMSnapshot -VM $vm | Where-Object { $_.Name -ceq $a.name })
    switch -CaseSensitive ($a.act) {
        'take' {
            if ($found.Count -gt 0) { Stop-With 'exists' ('machine {0} has a snapshot {1}' -f $a.id, $a.name) }
            $slot = 0
            foreach ($disk in $a.disks) {
                if ($disk.volume) { Get-Drive $vm $slot | Where-Object { $_ } | Remove-VMHardDiskDrive }
                $slot++
            }
            Checkpoint-VM -VM $vm -SnapshotName $a.name
            Join-Disks $vm $a.disks
        }
        'apply' {
            if ($found.Count -eq 0) { Stop-With 'not-found' ('machine {0} has no snapshot {1}' -f $a.id, $a.name) }
            Restore-VMSnapshot -VMSnapshot $found[0] -Confirm:$false
            $vm = Get-Resting $a.id
            Clear-Saved $vm
            Set-VMProcessor -VM $vm -Count $a.cpus
            Set-VMMemory -VM $vm -StartupBytes $a.memory
            Join-Disks $vm $a.disks
        }
        'drop' {
            foreach ($one in $found) { Remove-VMSnapshot -VMSnapshot $one }
        }
    }
    @{ names = @() }
}
