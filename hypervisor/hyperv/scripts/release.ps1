# consort hyper-v protocol 1: release

# release takes the mark off an adopted machine and forgets what was kept of it.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Find-Machine $a.id
    if ($null -ne $vm) {
        $lines = @($vm.Notes -split '\r?\n' | Where-Object { $_ -cne ('consort-machine: {0}' -f $a.id) })
        Set-VM -VM $vm -Notes ($lines -join [Environment]::NewLine)
    }
    $folder = Get-MachineFolder $a.id
    if (Test-Path -LiteralPath $folder) { Remove-Item -LiteralPath $folder -Recurse -Force }
    @{}
}
