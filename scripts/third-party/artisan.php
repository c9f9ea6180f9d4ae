<?php

/*
 * In place of the `artisan` of an application of Laravel, for the command of docs/recipes/backends.md: `tinker
 * --execute=CODE` over the parts of Laravel that the recipe uses, as Debian has them. Classes of `App` are files of
 * the working directory.
 */

use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Http\Client\Factory;
use Illuminate\Support\Facades\Facade;

require 'Illuminate/autoload.php';
require 'GuzzleHttp/autoload.php';

function config(string $key): mixed
{
    return Container::getInstance()['config'][$key];
}

spl_autoload_register(function (string $class): void {
    $file = getcwd() . '/' . basename(str_replace('\\', '/', $class)) . '.php';
    if (str_starts_with($class, 'App\\') && is_file($file)) {
        require $file;
    }
});

$app = Container::getInstance();
$services = ['socks' => ['api' => env('SOCKS_API'), 'key' => env('SOCKS_KEY')]];
$app->instance('config', new Repository(['services' => $services]));
$app->singleton(Factory::class);
Facade::setFacadeApplication($app);

[, $command, $execute] = $argv;
if ($command !== 'tinker' || !str_starts_with($execute, '--execute=')) {
    exit("artisan: only `tinker --execute=CODE` is here, not `$command $execute`\n");
}
eval(substr($execute, strlen('--execute=')) . ';');
